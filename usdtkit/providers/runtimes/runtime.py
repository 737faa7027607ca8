"""What the runtime of a language does in the processes of a session: calls, collections, objects, threads.

Input: a `trace.Session`, whose processes or command run the language. Output: sources and pairs of the session, or a
small object that makes values of its events. `places` says where the probes are, `language` what they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from usdtkit.errors import NotFoundError, UsageError
from usdtkit.providers.alternatives import first_found
from usdtkit.providers.runtimes.flow import CallFlow
from usdtkit.providers.runtimes.garbage import GarbageCollections
from usdtkit.providers.runtimes.language import CallProbes, Language
from usdtkit.providers.runtimes.languages import (
    children_speaking,
    language_called,
    language_of_process,
    language_of_program,
)
from usdtkit.providers.runtimes.objects import Objects, ObjectTable
from usdtkit.providers.runtimes.places import ProbePlaces, traced_by
from usdtkit.providers.runtimes.threads import Threads
from usdtkit.trace import Expression, Pair, Session, Source, Sources, arg, cpu, cstr, uprobe

PATTERN_SIZE = 512  # bytes of a name that are compared with a pattern
GROUP_IN_KEY, NAME_IN_KEY = 152, 80  # bytes of names in the keys of tables
MAX_OPEN_CALLS = 4096  # in one thread

AnySource = TypeVar("AnySource", bound=Source)


def of(session: Session, language: str | None = None, *, among: Sequence[str] = (), otherwise: str = "") -> Runtime:
    """The runtime of the language that the processes or the command of a session run.

    Without `language` it is found out from the files of the first process, or from the program that will be started.
    `among` are the languages that will do; of a process in another one the runtime is that of `otherwise`, or else
    NotFoundError says which language it runs. Processes that run the language too, below those that are traced, are
    mentioned in the session's remarks.
    """
    pids, program = traced_by(session)
    if language is not None:
        chosen = language_called(language)
    elif not pids and program is None:
        raise UsageError(
            "there is nothing to trace", hint="give a process, or a command to start, such as 'ruby app.rb'"
        )
    else:
        chosen = language_of_process(pids[0]) if program is None else language_of_program(program)
        if among and chosen.name not in among:
            if not otherwise:
                raise _another_language(f"process {pids[0]}" if program is None else program, chosen, among)
            chosen = language_called(otherwise)
    if chosen.programs and (others := children_speaking(chosen, pids)):
        everyone = ",".join(map(str, [*pids, *others]))
        session.remark(
            f"processes below those that are traced run {chosen.name} too, and are not traced; all of them: {everyone}"
        )
    return Runtime(session, chosen)


def _another_language(what: str, language: Language, among: Sequence[str]) -> NotFoundError:
    runs = "no language that usdtkit knows" if language.name == "c" else language.name
    hint = language.hint if language.name == "node" else f"if it runs one of these, name it with -l: {', '.join(among)}"
    return NotFoundError(f"{what} runs {runs}", hint=hint)


class Runtime:
    """A language, in the processes or the command of a session. Made by `of`."""

    def __init__(self, session: Session, language: Language) -> None:
        self.session = session
        self.language = language
        self.places = ProbePlaces(session, language)

    def sources(self, probe: str) -> Sources[Source]:
        """Hits of a probe, in every file that has it."""
        return Sources(*(self.session.source(place) for place in self.places.of(probe).values()))

    @property
    def names(self) -> dict[str, Expression]:
        """The names of a called function, for the keys of a table of `entries`.

        `group` is its class, file or package, if the language has one, and `name` its own name. A pair of `calls` has
        values with these names already.
        """
        return _names(self._calls()[0], GROUP_IN_KEY, NAME_IN_KEY)

    def entries(self, *, method: str = "", group: str = "") -> Sources[Source]:
        """Entries of functions.

        `method` selects functions whose name begins with it, or matches it if there is a * or ?; `group` does the same
        with classes, files or packages. NotFoundError if the language has no probes for calls.
        """
        return Sources(
            *(_chosen(source, calls, method, group) for calls in self._calls() for source in self.sources(calls.entry))
        )

    def calls(self, *, method: str = "", group: str = "") -> Sources[Pair]:
        """Calls of functions from entry to return, as pairs with a `latency`; they keep `group` and `name`.

        `method` and `group` are those of `entries`.
        """
        return Sources(*(_chosen(pair, calls, method, group) for calls in self._calls() for pair in self._pairs(calls)))

    def flow(self, *, method: str = "", group: str = "") -> CallFlow:
        """Send an event for each entry and return. The result makes steps of these events.

        `method` and `group` are those of `entries`.
        """
        for calls in self._calls():
            for probe in (calls.entry, calls.done):
                for source in self.sources(probe):
                    chosen = _chosen(source, calls, method, group)
                    chosen.emit(cpu=cpu, **_names(calls, PATTERN_SIZE, PATTERN_SIZE))
        return CallFlow({calls.entry for calls in self._calls()}, _name_of_event)

    def collections(self, *, min_ns: int = 0) -> GarbageCollections:
        """Send events of garbage collections. The result makes `GarbageCollection`s of these events.

        Collections shorter than `min_ns` are left out; those that are calls of a function, already in the kernel.
        """
        for kind in self.language.collections:
            if kind.done:
                for probe in (kind.start, kind.done):
                    self.sources(probe).emit()
            else:
                numbers = {name: arg(position).cast("u32") for name, position, _ in kind.numbers}
                pair = self._calls_of(kind.start, numbers)
                pair.where(pair.latency >= min_ns).emit("latency", *numbers)
        return GarbageCollections(self.language.collections, min_ns)

    def objects(self) -> Objects:
        """Count in the kernel what the program allocates: objects by type, or of C, blocks of malloc by size."""
        if self.language.name == "c":
            malloc = self.session.source(uprobe("c", "malloc"))
            return Objects([ObjectTable("block of {0} bytes", malloc.count("size"), malloc.sum("size", "size"))])
        if not self.language.objects:
            raise self._lacks("objects")
        tables = []
        for made in self.language.objects:
            keys = {"type": cstr(made.type, 128)} if made.type else {}
            sources = self.sources(made.probe)
            sizes = sources.sum(made.size, **keys) if made.size else None
            tables.append(ObjectTable(made.fixed or "{0}", sources.count(**keys), sizes))
        return Objects(tables)

    def threads(self) -> Threads:
        """Send an event for each thread that starts or stops; of C, for each that is created."""
        for probe in self.language.threads:
            self.sources(probe.probe).emit(name=cstr(probe.name, 64))
        if self.language.name == "c":
            self.session.source(uprobe("c", "pthread_create")).emit(start=arg(3))
        return Threads(self.session, {probe.probe: probe.kind for probe in self.language.threads})

    def _calls(self) -> Sequence[CallProbes]:
        if not self.language.calls:
            raise self._lacks("calls")
        if self.language.calls_remark:
            self.session.remark(self.language.calls_remark)
        return self.language.calls

    def _pairs(self, calls: CallProbes) -> list[Pair]:
        """Calls from entry to return, one pair for each file that has the probes."""
        entries, ends = self.places.of(calls.entry), self.places.of(calls.done)
        if endless := entries.keys() - ends.keys():
            name = os.path.basename(min(endless))  # noqa: PTH119
            raise NotFoundError(f"{self.places.what}: {name} has no {calls.done}", hint=self.language.hint)
        keep = _names(calls, GROUP_IN_KEY, NAME_IN_KEY)
        return [
            self.session.pair(entry, ends[path], keep=keep, nesting=MAX_OPEN_CALLS) for path, entry in entries.items()
        ]

    def _calls_of(self, function: str, keep: Mapping[str, Expression]) -> Pair:
        """The calls of a function of the language's own code."""
        return first_found(self.language.code, lambda library: self.session.pair(uprobe(library, function), keep=keep))

    def _lacks(self, what: str) -> NotFoundError:
        message = f"{self.places.what}: {self.language.name} has no probes for {what}"
        return NotFoundError(message, hint=self.language.hint)


def _names(calls: CallProbes, group_size: int, name_size: int) -> dict[str, Expression]:
    """What a call's probes say of the function: `group`, if the language has it, and `name`."""
    group = {"group": cstr(calls.group, group_size)} if calls.group else {}
    return {**group, "name": cstr(calls.name, name_size)}


def _chosen(source: AnySource, calls: CallProbes, method: str, group: str) -> AnySource:
    """Keep only the calls of functions that match. The kernel decides."""
    for argument, pattern in ((calls.name, method), (calls.group, group)):
        if pattern and argument:
            text = cstr(argument, PATTERN_SIZE)
            source = source.where(text.matches(pattern) if set(pattern) & set("*?") else text.startswith(pattern))
    return source


def full_name(parts: Sequence[str | None]) -> str:
    """CLASS.METHOD, or the method alone, of the values of `Runtime.names`; "?" for what could not be read."""
    return ".".join("?" if part is None else str(part) for part in parts if part != "")


def _name_of_event(event: Any) -> str:
    return full_name([getattr(event, part) for part in ("group", "name") if part in event._fields])
