"""Show what all language runtimes here do: calls, collections, objects, classes, exceptions and threads a second.

All processes that run Java, Python, Ruby, PHP, Node, Perl or Tcl, as far as their builds have probes and these are
switched on; what a process is, its files say, not its name. Of Node, which has no probes, the collections. The probes
stay in place between the intervals, so that no event is missed; runtimes that come later are found between two of them.

examples:
  usdtkit ustat                  every second
  usdtkit ustat -S gc 5          every 5 seconds, most collections first
  usdtkit ustat -l java 10 3     three times
"""

import argparse

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import follow_intervals, new_session, whose
from usdtkit.cli.values import positive, seconds
from usdtkit.output.report import PID, Column, Report, note
from usdtkit.output.text import show
from usdtkit.providers.runtimes import Activity
from usdtkit.providers.runtimes.languages import RUNTIMES

TOPIC = "languages"
VARIANTS = ("",)

HEADINGS = {
    **{"method": "METHOD/s", "gc": "GC/s", "objnew": "OBJNEW/s"},
    **{"cload": "CLOAD/s", "excp": "EXC/s", "thread": "THR/s"},
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ustat`."""
    parser.add_argument("interval", nargs="?", type=seconds, default=1.0, metavar="INTERVAL", help="seconds (1)")
    parser.add_argument("intervals", nargs="?", type=positive, metavar="COUNT", help="end after so many intervals")
    parser.add_argument("-l", "--language", choices=[language.name for language in RUNTIMES], help="only this one")
    parser.add_argument("-S", "--sort", choices=HEADINGS, default="method", help="what the first line has most of")
    parser.add_argument("-r", "--maxrows", type=positive, default=20, metavar="ROWS", help="at most so many lines (20)")
    parser.add_argument("-C", "--noclear", action="store_true", help="accepted: the screen is never cleared")
    parser.add_argument("-D", "--debug", dest="program", action="store_true", help="as --program; bcc has -d")
    add_session_options(parser)
    parser.set_defaults(timestamp=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    columns = [PID, Column("CMDLINE", "command", 16, shortened)]
    columns += [Column(heading, name, 8, "{:.0f}".format, right=True) for name, heading in HEADINGS.items()]
    with new_session(options) as session:
        activity = Activity(session, [options.language] if options.language else [])

        def write(report: Report) -> None:
            processes = sorted(activity.rates(), key=lambda process: -process.rates[options.sort])
            report.block(
                {"pid": one.pid, "command": one.command, **one.rates, "interval_s": one.interval_s}
                for one in processes[: options.maxrows]
            )
            for path in activity.look():
                note(f"usdtkit: found {path}{whose(path)}")

        return follow_intervals(session, options, "ustat", columns, write)


def shortened(command: str) -> str:
    """The beginning of a command, without the directory of the program."""
    program, *words = command.split(" ")
    return show(" ".join([program.rpartition("/")[2], *words])[:16])
