"""Count the stacks that lead to functions or USDT probes.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), command or file; globs allowed: c:pthread_*_lock
  PROVIDER:PROBE             USDT probes of all that runs, or of -p, where no LIBRARY has such a FUNCTION
  u:LIBRARY:PROVIDER:PROBE   those of a library, command or file; without PROVIDER too
Frames are found by frame pointers: what is compiled without them (-fomit-frame-pointer, the default of many) shows its
own function and its caller, and then what frame pointers there are.

examples:
  usdtkit stackcount c:malloc -p 1234
  usdtkit stackcount 'c:pthread_*_lock' -i 1 -T      every second, with the time
  usdtkit stackcount shop:order__start -f > stacks.folded
"""

import argparse
from collections import Counter

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options
from usdtkit.cli.values import seconds
from usdtkit.language.select import matching
from usdtkit.output import folded
from usdtkit.output.report import Report
from usdtkit.output.text import printable
from usdtkit.trace import comm, pid, ustack

TOPIC = "any function or probe"
VARIANTS = ("c:malloc", "c:malloc -P")

# Labels of the frames, innermost first; with -P also process and command.
Row = tuple[tuple[str, ...], int | None, str | None]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit stackcount`."""
    parser.add_argument("pattern", metavar="PATTERN", help="functions or probes")
    parser.add_argument("-D", dest="duration", type=seconds, metavar="SEC", help="as -d, which bcc spells -D")
    parser.add_argument(
        "-r", "--regexp", action="store_true", help="FUNCTION or PROVIDER:PROBE is a regular expression"
    )
    parser.add_argument("-s", "--offset", action="store_true", help="offsets in the functions")
    parser.add_argument("-P", "--perpid", action="store_true", help="count each process by itself")
    parser.add_argument("-f", "--folded", action="store_true", help="folded lines, for flame graphs")
    parser.add_argument("--debug", dest="program", action="store_true", help="as --program")
    parser.add_argument("-U", "--user-stacks-only", action="store_true", help="which is all that there is here")
    add_interval_options(parser)
    add_filter_options(parser)
    add_session_options(parser, chosen=True, verbose="show addresses")


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    options.timestamp &= not options.folded  # other programs read those lines
    with shared.new_session(options) as session:
        source = session.source(matching(session, options.pattern, regexp=options.regexp))
        source = shared.filtered(source, options)
        keys = {"process": pid, "command": comm} if options.perpid else {}
        counts, before = source.count(stack=ustack, **keys), Counter[Row]()

        def write(report: Report) -> None:
            total: Counter[Row] = Counter()
            found = counts.read()
            folded.learn(stack for stack, *_ in found)
            # The same names in several processes are one row, unless each is asked for.
            for (stack, *process), count in found.items():
                labels = folded.labels(stack, offsets=options.offset, addresses=options.verbose)
                owner, command = process or (None, None)
                total[labels, owner, command] += count
            new = total - before
            before.update(new)
            for row, count in sorted(new.items(), key=lambda row: row[1]):
                _write(report, row, count, options)
            print(end="", flush=True)

        return shared.follow_intervals(session, options, "stackcount", (), write)


def _write(report: Report, row: Row, count: int, options: argparse.Namespace) -> None:
    labels, process, command = row
    if options.format != "table":
        whose = {} if process is None else {"pid": process, "comm": command}
        report.block([{**whose, "count": count, "stack": folded.cell(labels, options.format)}])
    elif options.folded:
        print(folded.line((*([] if process is None else [f"{command}-{process}"]), *reversed(labels)), count))
    else:
        owner = [] if process is None else [f"    {printable(command or '?')} [{process}]"]
        print("", *(f"  {printable(label)}" for label in labels), *owner, f"    {count}", sep="\n")
