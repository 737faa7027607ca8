"""Show what all language runtimes here do: calls, collections, objects, classes, exceptions and threads a second.

All processes that run Java, Python, Ruby, PHP, Perl or Tcl, as far as their builds have probes and these are switched
on; what a process is, its files say, not its name. The probes stay in place between the intervals: no event is missed.

examples:
  usdtkit ustat                  every second
  usdtkit ustat -S gc 5          every 5 seconds, most collections first
  usdtkit ustat -l java 10 3     three times
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from usdtkit import targets
from usdtkit.cli.run import add_session_options, follow_intervals, new_session, positive, seconds
from usdtkit.errors import NotFoundError
from usdtkit.output.report import PID, Column, Report
from usdtkit.output.text import show
from usdtkit.providers.languages import LANGUAGES, Language
from usdtkit.trace import Counts, Session
from usdtkit.trace import pid as process_id
from usdtkit.trace.specs import resolve_probes

TOPIC = "languages"

Names = Callable[[Language], list[str]]
CATEGORIES: dict[str, tuple[str, Names]] = {
    "method": ("METHOD/s", lambda language: [calls.entry for calls in language.calls]),
    "gc": ("GC/s", lambda language: [span.start for span in language.collections]),
    "objnew": ("OBJNEW/s", lambda language: [made.probe for made in language.objects]),
    "cload": ("CLOAD/s", lambda language: list(language.loaded)),
    "excp": ("EXC/s", lambda language: list(language.exceptions)),
    "thread": ("THR/s", lambda language: [one.probe for one in language.threads if one.kind.endswith("start")]),
}
SPOKEN = [language for language in LANGUAGES if language.programs]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ustat`."""
    parser.add_argument("interval", nargs="?", type=seconds, default=1.0, metavar="INTERVAL", help="seconds (1)")
    parser.add_argument("intervals", nargs="?", type=positive, metavar="COUNT", help="end after so many intervals")
    parser.add_argument("-l", "--language", choices=[language.name for language in SPOKEN], help="only this one")
    parser.add_argument("-S", "--sort", choices=CATEGORIES, default="method", help="what the first line has most of")
    parser.add_argument("-r", "--maxrows", type=positive, default=20, metavar="ROWS", help="at most so many lines (20)")
    parser.add_argument("-C", "--noclear", action="store_true", help="accepted: the screen is never cleared")
    parser.add_argument("-D", "--debug", dest="program", action="store_true", help="as --program")
    add_session_options(parser)
    parser.set_defaults(timestamp=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    columns = [PID, Column("CMDLINE", "command", 16, lambda text: show(text[:16]))]
    columns += [Column(heading, name, 8, "{:.0f}".format, right=True) for name, (heading, _) in CATEGORIES.items()]
    with new_session(options) as session:
        tables = counting(session, options.language, options.pid)

        def write(report: Report) -> None:
            rates: dict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(CATEGORIES, 0.0))
            for category, counts in tables:
                for (process,), number in counts.delta().items():
                    rates[process][category] += number / options.interval
            order = sorted(rates, key=lambda process: -rates[process][options.sort])
            report.block({"pid": each, "command": command(each), **rates[each]} for each in order[: options.maxrows])

        return follow_intervals(session, options, "ustat", columns, write)


def counting(session: Session, wanted: str | None, pids: list[int] | None) -> list[tuple[str, Counts]]:
    """(category, counts by process) of every probe that a running runtime has."""
    probes = targets.probes_of(targets.mapped_by(pids) if pids else targets.everything())
    tables = []
    for language in SPOKEN if wanted is None else [each for each in SPOKEN if each.name == wanted]:
        for category, (_, names) in CATEGORIES.items():
            for name in names(language):
                found = [one for one in probes if one.spec == name]
                if found:
                    tables.append((category, session.source(resolve_probes(name, found)).count(process=process_id)))
    if not tables:
        raise NotFoundError(f"no {wanted or 'runtime'} with probes runs here", hint="usdtkit run APP.py adds Python's")
    return tables


def command(process: int) -> str:
    """The words of a process, "" when it has ended."""
    try:
        return " ".join(Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")).strip()
    except OSError:
        return ""
