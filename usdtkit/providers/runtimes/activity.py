"""The activity of all runtimes of a machine: calls, collections, objects, loaded classes, exceptions, threads a second.

Input: a session of some processes, of a command, or of everything. Output: `ProcessActivity` of each process, from
counters in the kernel. The probes stay in place between two looks at the counters, so no event is missed. A session
that discovers also counts in the files of runtimes that start later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from usdtkit import libraries, targets
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError
from usdtkit.model import Target, UserPlace
from usdtkit.providers.runtimes.language import Language
from usdtkit.providers.runtimes.languages import RUNTIMES, language_called
from usdtkit.providers.runtimes.places import ProbePlaces
from usdtkit.records import dataclass
from usdtkit.scan import file_key
from usdtkit.trace import FunctionSpec, Resolved, Session, Sought, UsdtSpec, pid

# What is counted, and the probes or functions of a language that are counted for it.
CATEGORIES: dict[str, Callable[[Language], list[str]]] = {
    "method": lambda language: [calls.entry for calls in language.calls],
    "gc": lambda language: [collections.start for collections in language.collections],
    "objnew": lambda language: [objects.probe for objects in language.objects],
    "cload": lambda language: list(language.loaded),
    "excp": lambda language: list(language.exceptions),
    "thread": lambda language: [thread.probe for thread in language.threads if thread.kind.endswith("start")],
}


@dataclass(frozen=True, slots=True)
class ProcessActivity:
    """The activity of a process in the last `interval_s` seconds, as events a second of each category.

    `command` has its words; it is "" if the process ended before they could be read.
    """

    pid: int
    command: str
    rates: dict[str, float]
    interval_s: float


class Activity:
    """Counts what the runtimes of some languages do, in everything that a session traces."""

    def __init__(self, session: Session, languages: Sequence[str] = ()) -> None:
        """`languages` are names; without any, all languages are meant."""
        self._session = session
        chosen = [language_called(name) for name in languages] or list(RUNTIMES)
        places = {} if session.offline else _places(chosen, [*_of_command(session, chosen), *_in_use(session)])
        self._sources = {
            category: session.source(
                Resolved(category, "usdt", (), tuple(places.get(category, ())), sought=Sought(_specs(chosen, category)))
            )
            for category in CATEGORIES
        }
        self._tables = {category: source.count(process=pid) for category, source in self._sources.items()}
        if not places:
            what = " or ".join(languages) or "runtime"
            session.remark(f"no {what} with probes runs here yet; usdtkit run adds probes to Python")
        self._commands = {pid: " ".join(session.command) or command_of(pid) for pid in session.pids}
        self._before_s = 0.0

    def rates(self) -> list[ProcessActivity]:
        """The activity of each process since the last call; processes that did nothing are left out."""
        now_s = self._session.summary().duration_s
        interval_s, self._before_s = now_s - self._before_s, now_s
        rates: dict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(CATEGORIES, 0.0))
        for category, counts in self._tables.items():
            for (process,), count in counts.delta().items():
                rates[process][category] = count / interval_s
        # A process that has ended since is still known by the words that it had the last time.
        self._commands = {process: command_of(process) or self._commands.get(process, "") for process in rates}
        return [
            ProcessActivity(process, self._commands[process], of_process, interval_s)
            for process, of_process in rates.items()
        ]


def _places(languages: Sequence[Language], mapped: Iterable[Target]) -> dict[str, list[UserPlace]]:
    """Where to count in these files, by category."""
    files = list({target.key or file_key(target.path): target for target in mapped}.values())
    probes = targets.probes_of(files)
    places: dict[str, list[UserPlace]] = defaultdict(list)
    for category, names_of in CATEGORIES.items():
        for language in languages:
            names = names_of(language)
            for probe in probes:
                if probe.spec in names:
                    places[category] += [
                        UserPlace(probe.spec, probe.path, site.file_offset, site.semaphore_offset, file=probe.file)
                        for site in probe.sites
                    ]
            functions = [name for name in names if ":" not in name]
            for target in files if functions else ():
                if any(libraries.is_called(target.name, name) for name in language.code):
                    places[category] += _entries(target, functions)
    return places


def _specs(languages: Sequence[Language], category: str) -> Iterator[UsdtSpec | FunctionSpec]:
    """What is counted in files that come later."""
    for language in languages:
        names = CATEGORIES[category](language)
        yield from (UsdtSpec(name) for name in names if ":" in name)
        if functions := tuple(name for name in names if ":" not in name):
            # A program of that name counts wherever it is, not only the one in PATH.
            yield from (FunctionSpec(name, functions) for code in language.code for name in (code, f"*/{code}"))


def _entries(target: Target, functions: Sequence[str]) -> list[UserPlace]:
    """The entries of functions in a file; none if it cannot be read, or no process has it any more."""
    with suppress(ElfError, NotFoundError, PrivilegeError):
        return [
            UserPlace(function.name, function.path, function.file_offset, file=function.file)
            for function in targets.functions_in(target, *functions)
        ]
    return []


def _in_use(session: Session) -> list[Target]:
    """What the processes of the session map; of a session without any, what all processes map, and provider files.

    NotFoundError if one of the processes has ended.
    """
    return targets.mapped_by(session.search_pids) if session.search_pids else targets.everything()


def _of_command(session: Session, languages: Sequence[Language]) -> Iterator[Target]:
    """The files that the session's command will map, as far as they are known before it runs."""
    for language in languages if session.command else ():
        yield from (Target(path, path) for path in ProbePlaces(session, language).files_of_program())


def command_of(process: int) -> str:
    """The words of a process, or "" if it has ended."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:  # noqa: PTH123  # pathlib would slow down every start
            return " ".join(file.read().decode(errors="replace").split("\0")).strip()
    except OSError:
        return ""
