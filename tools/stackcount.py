"""Count the stacks that lead to functions or USDT probes.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), command or file; globs allowed: c:pthread_*_lock
  u:LIBRARY:PROVIDER:PROBE   USDT probes; without LIBRARY (u::…), those of provider files and running processes
Frames are found by frame pointers: programs and libraries compiled without them (-fomit-frame-pointer, the default of
many) show their own function and its caller, and then what frame pointers there are.

examples:
  usdtkit stackcount c:malloc -p 1234
  usdtkit stackcount 'c:pthread_*_lock' -i 1 -T      every second, with the time
  usdtkit stackcount u::shop:order__start -f > stacks.folded
"""

import argparse
from collections import Counter

from usdtkit.cli import run as shared
from usdtkit.language.select import matching
from usdtkit.output import folded
from usdtkit.output.report import Report
from usdtkit.output.text import printable
from usdtkit.trace import Counts, Stack, comm, pid, ustack

TOPIC = "any function or probe"

Row = tuple[tuple[str, ...], int | None, str | None]
"""Labels of the frames, innermost first; with -P also process and command."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit stackcount`."""
    parser.add_argument("pattern", metavar="PATTERN", help="functions or probes")
    parser.add_argument("-D", dest="duration", type=shared.seconds, metavar="SEC", help="as -d, which bcc spells -D")
    parser.add_argument(
        "-r", "--regexp", action="store_true", help="FUNCTION or PROVIDER:PROBE is a regular expression"
    )
    parser.add_argument("-s", "--offset", action="store_true", help="offsets in the functions")
    parser.add_argument("-P", "--perpid", action="store_true", help="count each process by itself")
    parser.add_argument("-v", "--verbose", action="store_true", help="addresses")
    parser.add_argument("-f", "--folded", action="store_true", help="folded lines, for flame graphs")
    parser.add_argument("--debug", dest="program", action="store_true", help="as --program")
    ignored = "stacks are those of the application"
    shared.add_ignored_options(parser, {"-U --user-stacks-only": ignored, "-K --kernel-stacks-only": ignored})
    shared.add_interval_options(parser)
    shared.add_filter_options(parser)
    shared.add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    options.timestamp &= not options.folded  # whose lines others read
    with shared.new_session(options) as session:
        source = session.source(matching(session, options.pattern, regexp=options.regexp))
        source = shared.filtered(source, options)
        counts = source.count(stack=ustack, process=pid, command=comm) if options.perpid else source.count(stack=ustack)
        before: Counter[Row] = Counter()

        def write(report: Report) -> None:
            total = _rows(counts, options)
            fresh = total - before
            before.clear()
            before.update(total)
            _write(report, fresh, options)

        return shared.follow_intervals(session, options, "stackcount", (), write)


def _rows(counts: Counts, options: argparse.Namespace) -> Counter[Row]:
    """Counts by what is shown: the same names in several processes are one row, unless each is asked for."""
    rows: Counter[Row] = Counter()
    for (stack, *process), count in counts.read().items():
        process_id, command = process or (None, None)
        rows[_labels(stack, options), process_id, command] += count
    return rows


def _labels(stack: Stack | None, options: argparse.Namespace) -> tuple[str, ...]:
    return folded.labels(stack, offsets=options.offset, addresses=options.verbose)


def _write(report: Report, rows: Counter[Row], options: argparse.Namespace) -> None:
    for (labels, process, command), count in sorted(rows.items(), key=lambda row: row[1]):
        if options.format != "table":
            whose = {} if process is None else {"pid": process, "comm": command}
            frames = [printable(label) for label in labels]
            stack = frames if options.format == "json" else ";".join(map(folded.fold, reversed(labels)))
            report.block([{**whose, "count": count, "stack": stack}])
        elif options.folded:
            process_label = () if process is None else (f"{command}-{process}",)
            print(folded.line((*process_label, *reversed(labels)), count))
        else:
            print()
            for label in labels:
                print(f"  {printable(label)}")
            if process is not None:
                print(f"    {printable(command or '?')} [{process}]")
            print(f"    {count}")
    print(end="", flush=True)
