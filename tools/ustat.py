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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from usdtkit import libraries, targets
from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.languages import Runtime
from usdtkit.cli.run import follow_intervals, new_session, whose
from usdtkit.cli.values import positive, seconds
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError
from usdtkit.model import Target, UserPlace
from usdtkit.output.report import PID, Column, Report, note
from usdtkit.output.text import show
from usdtkit.scan import file_key
from usdtkit.signatures.languages import LANGUAGES, Language
from usdtkit.trace import Session
from usdtkit.trace import pid as process_id
from usdtkit.trace.command import find_program
from usdtkit.trace.specs import Resolved

TOPIC = "languages"
VARIANTS = ("",)

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
# Looking for new files costs as much as there are processes: no more than this share of the time.
LOOKING = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ustat`."""
    parser.add_argument("interval", nargs="?", type=seconds, default=1.0, metavar="INTERVAL", help="seconds (1)")
    parser.add_argument("intervals", nargs="?", type=positive, metavar="COUNT", help="end after so many intervals")
    parser.add_argument("-l", "--language", choices=[language.name for language in SPOKEN], help="only this one")
    parser.add_argument("-S", "--sort", choices=CATEGORIES, default="method", help="what the first line has most of")
    parser.add_argument("-r", "--maxrows", type=positive, default=20, metavar="ROWS", help="at most so many lines (20)")
    parser.add_argument("-C", "--noclear", action="store_true", help="accepted: the screen is never cleared")
    parser.add_argument("-D", "--debug", dest="program", action="store_true", help="as --program; bcc has -d")
    add_session_options(parser)
    parser.set_defaults(timestamp=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    columns = [PID, Column("CMDLINE", "command", 16, shortened)]
    columns += [Column(heading, name, 8, "{:.0f}".format, right=True) for name, (heading, _) in CATEGORIES.items()]
    spoken = [each for each in SPOKEN if options.language in (None, each.name)]
    with new_session(options) as session:
        files = Files(spoken)
        found = files.new([*of_command(options, session, spoken), *([] if options.by_heart else in_use(options.pid))])
        sources = {
            category: session.source(
                Resolved(
                    category,
                    "usdt",
                    (),
                    tuple(chain.from_iterable(at for (of, _), at in found.items() if of == category)),
                )
            )
            for category in CATEGORIES
        }
        tables = {category: source.count(process=process_id) for category, source in sources.items()}
        if not found and not options.by_heart:
            note(f"usdtkit: no {options.language or 'runtime'} with probes runs here yet; usdtkit run adds Python's")
        before = look_again = 0.0
        words = {each: " ".join(options.command or ()) or command(each) for each in session.pids}

        def write(report: Report) -> None:
            nonlocal before, look_again, words
            now = session.summary().duration_s
            rates: dict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(CATEGORIES, 0.0))
            for category, counts in tables.items():
                for (process,), number in counts.delta().items():
                    rates[process][category] = number / (now - before)
            order = sorted(rates, key=lambda process: -rates[process][options.sort])
            # What has ended since the last time is still known from then.
            words = {each: command(each) or words.get(each, "") for each in rates}
            rows = ({"pid": each, "command": words[each], **rates[each]} for each in order[: options.maxrows])
            report.block({**row, "interval_s": now - before} for row in rows)
            before = now
            if now >= look_again and not (session.ended or options.drop or options.drop_to):
                look()
                after = session.summary().duration_s
                look_again = after + (after - now) / LOOKING

        def look() -> None:
            with suppress(NotFoundError):  # one of the processes that were asked for has ended
                found = files.new(in_use(options.pid, quiet=True))
                for (category, _), places in found.items():
                    with suppress(NotFoundError):  # so has the only one in whose container the file was
                        session.extend(sources[category], places)
                for path in dict.fromkeys(path for _, path in found):
                    note(f"usdtkit: found {path}{whose(path)}")

        return follow_intervals(session, options, "ustat", columns, write)


Found = dict[tuple[str, str], list[UserPlace]]
"""By category and file, where to count."""


class Files:
    """The files that have been looked into, for the probes and functions of these languages."""

    def __init__(self, languages: Sequence[Language]) -> None:
        self._languages = languages
        self._known: set[object] = set()

    def new(self, mapped: Iterable[Target]) -> Found:
        """What is found in those of the files that were not looked into before."""
        keys = {target.key or file_key(target.path): target for target in mapped}
        fresh = [target for key, target in keys.items() if key is not None and key not in self._known]
        self._known |= keys.keys()
        probes = targets.probes_of(fresh)
        found: Found = defaultdict(list)
        for category, (_, names) in CATEGORIES.items():
            for language in self._languages:
                wanted = names(language)
                for probe in probes:
                    if probe.spec in wanted:
                        found[category, probe.path] += [
                            UserPlace(probe.spec, probe.path, site.file_offset, site.semaphore_offset, file=probe.file)
                            for site in probe.sites
                        ]
                functions = [name for name in wanted if ":" not in name]
                for target in fresh if functions else ():
                    if any(libraries.is_called(target.name, name) for name in language.code):
                        with suppress(ElfError, NotFoundError, PrivilegeError):  # no process has it any more
                            for one in targets.functions_in(target, *functions):
                                place = UserPlace(one.name, one.path, one.file_offset, file=one.file)
                                found[category, target.path].append(place)
        return found


def in_use(pids: Sequence[int] | None, *, quiet: bool = False) -> list[Target]:
    """What the processes map, or all of them, and then all provider files too. NotFoundError where one has ended."""
    return targets.mapped_by(pids) if pids else targets.everything(quiet=quiet)


def of_command(options: argparse.Namespace, session: Session, spoken: Sequence[Language]) -> Iterator[Target]:
    """The files that a command will map, as far as they are known before it does: those with its language's probes."""
    program = find_program(options.command) if options.command else None
    for language in spoken if program else ():
        runtime = Runtime(session, language, (), program, options.command)
        yield from (Target(path, path) for path in runtime.files_of_program())


def shortened(command: str) -> str:
    """The beginning of a command, without the directory of the program."""
    program, *words = command.split(" ")
    return show(" ".join([program.rpartition("/")[2], *words])[:16])


def command(process: int) -> str:
    """The words of a process, "" where it has ended."""
    try:
        return " ".join(Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")).strip()
    except OSError:
        return ""
