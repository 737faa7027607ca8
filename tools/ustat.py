"""Show what all language runtimes here do: calls, collections, objects, classes, exceptions and threads a second.

All processes that run Java, Python, Ruby, PHP, Node, Perl or Tcl are shown, as far as their builds have probes and
these are switched on. A process is recognised by its files, whatever it is called. Node has no probes, so only its
collections are counted. The probes stay in place between the intervals, so that no event is missed. Runtimes that start
later are found as they start.

examples:
  usdtkit ustat                  every second
  usdtkit ustat -S gc 5          every 5 seconds, the one with the most collections first
  usdtkit ustat -l java 10 3     three times
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import Spelling
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import positive, seconds
from usdtkit.output.text import printable
from usdtkit.providers.runtimes import LANGUAGES, Activity
from usdtkit.results import PID, Column, Summaries, Table
from usdtkit.trace import Session

TOPIC = "languages"
VARIANTS = ("",)
SPELLING = Spelling(timestamps=True)


def shortened(command: str) -> str:
    """The beginning of a command, without the directory of the program. Printable: a process writes its own words."""
    program, *words = printable(command).split(" ")
    return " ".join([program.rpartition("/")[2], *words])[:16]


RATES = tuple(
    Column(name, heading, "number", 8, meaning, show="{:.0f}".format)
    for name, heading, meaning in (
        ("method", "METHOD/s", "calls a second"),
        ("gc", "GC/s", "garbage collections a second"),
        ("objnew", "OBJNEW/s", "objects made a second"),
        ("cload", "CLOAD/s", "classes, modules or files loaded a second"),
        ("excp", "EXC/s", "exceptions a second"),
        ("thread", "THR/s", "threads started a second"),
    )
)
COLUMNS = (
    PID,
    Column("command", "CMDLINE", width=16, meaning="the words of the process", show=shortened),
    *RATES,
    Column("interval_s", type="number", meaning="the seconds that the rates are of"),
)


class Options(ToolOptions):
    """Options of `usdtkit ustat`."""

    interval: float = option(
        type=seconds, default=1.0, metavar="INTERVAL", help="print every INTERVAL seconds (default 1)"
    )
    intervals: int | None = option(type=positive, default=None, metavar="COUNT", help="stop after COUNT intervals")
    language: str | None = option(
        *("-l", "--language"),
        default=None,
        choices=[language.name for language in LANGUAGES if language.programs],
        help="only this language",
    )
    sort: str = option(
        *("-S", "--sort"),
        default="method",
        choices=[column.name for column in RATES],
        help="put the process with the highest of these rates first (default method)",
    )
    maxrows: int = option(
        *("-r", "--maxrows"), type=positive, default=20, metavar="ROWS", help="show at most ROWS processes (default 20)"
    )
    noclear: bool = option(
        "-C", "--noclear", default=False, help="accepted for compatibility with bcc; the screen is never cleared"
    )
    debug: bool = option(
        "-D", "--debug", dest="program", default=False, help="show the BPF program, as --program does; bcc has -d"
    )


def trace(session: Session, options: Options) -> Summaries:
    """Count what runtimes do; the busiest processes of each interval first."""
    activity = Activity(session, [options.language] if options.language else [])

    def summarise() -> Iterator[Table]:
        busiest = sorted(activity.rates(), key=lambda process: -process.rates[options.sort])[: options.maxrows]
        yield Table(
            {"pid": process.pid, "command": process.command, **process.rates, "interval_s": process.interval_s}
            for process in busiest
        )

    return Summaries(session, COLUMNS, summarise)
