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
import re
from collections import Counter

from usdtkit.cli.run import add_interval_options, add_session_options, follow_intervals, new_session, seconds
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.output import folded
from usdtkit.output.report import Report
from usdtkit.output.text import printable
from usdtkit.trace import Counts, Session, Source, Stack, comm, pid, uprobe, ustack
from usdtkit.trace.specs import resolve_probes

TOPIC = "any function or probe"
VARIANTS = ("c:malloc", "c:malloc -P")

Row = tuple[tuple[str, ...], int | None, str | None]
"""Labels of the frames, innermost first; with -P also process and command."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit stackcount`."""
    parser.add_argument("pattern", metavar="PATTERN", help="functions or probes")
    parser.add_argument("-D", dest="duration", type=seconds, metavar="SEC", help="as -d, which bcc spells -D")
    parser.add_argument(
        "-r", "--regexp", action="store_true", help="FUNCTION or PROVIDER:PROBE is a regular expression"
    )
    parser.add_argument("-s", "--offset", action="store_true", help="offsets in the functions")
    parser.add_argument("-P", "--perpid", action="store_true", help="count each process by itself")
    parser.add_argument("-v", "--verbose", action="store_true", help="addresses")
    parser.add_argument("-f", "--folded", action="store_true", help="folded lines, for flame graphs")
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    options.timestamp &= not options.folded  # whose lines others read
    with new_session(options) as session:
        source = _source(session, options.pattern, options.regexp)
        counts = source.count(stack=ustack, process=pid, command=comm) if options.perpid else source.count(stack=ustack)
        before: Counter[Row] = Counter()

        def write(report: Report) -> None:
            total = _rows(counts, options)
            fresh = total - before
            before.clear()
            before.update(total)
            _write(report, fresh, options)

        return follow_intervals(session, options, "stackcount", (), write)


def _source(session: Session, pattern: str, regexp: bool) -> Source:
    kind, _, rest = pattern.partition(":")
    if kind == "u" and rest.count(":") in (1, 2):
        library, _, name = rest.partition(":")
        if ":" not in name:  # bcc's spelling leaves the provider out
            name = f":{name}" if regexp else f"*:{name}"
        found = session.find_probes("*:*" if regexp else name, library or None)
        probes = [probe for probe in found if not regexp or _expression(name).search(probe.spec)]
        if not probes:
            raise NotFoundError(f"no probe matches {name!r}", hint="usdtkit list shows probes")
        return session.source(resolve_probes(pattern, probes))
    library, _, name = (rest if kind == "p" and ":" in rest else pattern).partition(":")
    if not library or not name:
        raise UsageError(f"{pattern!r} is no pattern", hint="LIBRARY:FUNCTION, or u:LIBRARY:PROVIDER:PROBE")
    if not regexp:
        return session.source(uprobe(library, name))
    functions = session.find_functions(library, [_expression(name)])
    return session.source(uprobe(library, *sorted({function.name for function in functions})))


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from None


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
