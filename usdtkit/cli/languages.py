"""What the tools for languages share: the language of a process, where its probes are, and why there may be none.

Input: the tools' options. Output: a `Runtime` in a session, whose sources and pairs the tools act on. What is known of
each language stands in `usdtkit.signatures.languages`.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH110, PTH118, PTH119, PTH120

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from usdtkit import libraries, targets
from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import AnySource, new_session
from usdtkit.cli.values import pid, seconds
from usdtkit.errors import NotFoundError, PrivilegeError, UsageError
from usdtkit.model import Probe, Target
from usdtkit.output.report import note
from usdtkit.records import dataclass
from usdtkit.signatures.languages import BY_NAME, LANGUAGES, Calls, Language, Switch
from usdtkit.trace import Counts, Expression, Pair, Session, Source, cstr, usdt
from usdtkit.trace.command import find_program
from usdtkit.trace.specs import Resolved, resolve_probes

# Bytes of names: of those that a pattern is compared with; in keys of a table, which have room for so much.
NAME_SIZE = 512
GROUP_IN_KEY, NAME_IN_KEY = 152, 80
DEEPEST = 4096  # calls that are open in one thread


def add_language_options(parser: argparse.ArgumentParser, *languages: str, otherwise: str = "") -> None:
    """PID, -l, -v and the options of a session. `otherwise`: what is traced of processes in any other language."""
    parser.add_argument("process", nargs="?", type=_process, metavar="PID", help="the process to trace")
    parser.add_argument(
        "-l", "--language", type=_language, choices=languages, help="its language, where it is not found out"
    )
    add_session_options(parser, shows_program=True)
    parser.set_defaults(languages=languages, otherwise=otherwise)


def add_trailing_interval(parser: argparse.ArgumentParser) -> None:
    """The number of seconds after the PID, as bcc's tools for languages have it."""
    parser.add_argument("interval", nargs="?", type=seconds, metavar="INTERVAL", help="print every so many seconds")
    parser.set_defaults(intervals=None, timestamp=False)


def add_name_options(parser: argparse.ArgumentParser) -> None:
    """-M and -C; `chosen` obeys them."""
    parser.add_argument(
        "-M", "--method", metavar="GLOB", help="only methods whose name begins so, or matches: 'get*Id'"
    )
    parser.add_argument("-C", "--class", dest="group", metavar="GLOB", help="only of such classes, files or packages")


@contextmanager
def tracing(options: argparse.Namespace, **more: Any) -> Iterator[Runtime]:
    """A session for the options, and the language that it traces."""
    pids = [*([options.process] if options.process else []), *(options.pid or [])]
    language = BY_NAME[options.language] if options.language else None
    if language and language.programs and not pids and not options.command:
        pids = speaking(language)
    if bool(pids) == bool(options.command):
        raise UsageError("what should be traced?", hint="a PID, or a command to start: -c 'ruby app.rb'")
    program = find_program(options.command) if options.command else None
    if language is None:
        language = language_of(pids, program, options.languages, options.otherwise)
    if not options.by_heart:
        _tell_of_others(pids, language)
    with new_session(options, pids=pids or None, **more) as session:
        yield Runtime(session, language, tuple(pids), program, options.command or (), options.by_heart)


def speaking(language: Language) -> list[int]:
    """The processes that run a language now, but for this one. NotFoundError, PrivilegeError of none."""
    files: dict[int, list[str]] = {}
    for target in targets.all_mapped():
        for number in target.pids:
            files.setdefault(number, []).append(os.path.basename(target.name))
    found = [number for number, names in files.items() if number != os.getpid() and _spoken(names) is language]
    if found:
        return sorted(found)
    if os.geteuid() != 0:
        raise PrivilegeError(f"no {language.name} among the processes that may be looked into", hint="run as root")
    raise NotFoundError(f"no process here runs {language.name}", hint="start it first, or -c CMD to start it")


def language_of(pids: Sequence[int], program: str | None, wanted: Sequence[str], otherwise: str = "") -> Language:
    """The language of the first process, or of a program: by the name of its file, then by the libraries it maps."""
    if program is not None:
        what, names = program, [os.path.basename(program), os.path.basename(os.path.realpath(program))]
    else:
        what, names = f"process {pids[0]}", _names_of_files(pids[0])
    language = _spoken(names)
    if language.name in wanted:
        return language
    if otherwise:
        return BY_NAME[otherwise]
    spoken = "no language that is known here" if language.name == "c" else language.name
    hint = language.hint if language.name == "node" else f"-l one of {', '.join(wanted)}"
    raise NotFoundError(f"{what} runs {spoken}", hint=hint)


def _tell_of_others(pids: Sequence[int], language: Language) -> None:
    """Say what is not traced where somebody might think so: workers of a server."""
    others = []
    for number in dict.fromkeys(child for each in pids for child in targets.below(each) if child not in pids):
        with suppress(NotFoundError, PrivilegeError):
            if language.programs and _spoken(_names_of_files(number)) is language:
                others.append(number)
    if others:
        all_ = ",".join(map(str, [*pids, *others]))
        note(f"usdtkit: {language.name} also runs below, and is not traced there: -p {all_} traces them all")


def _names_of_files(number: int) -> list[str]:
    return [os.path.basename(target.name) for target in targets.mapped_files(number)]


def _spoken(names: Sequence[str]) -> Language:
    """By the names of files: programs tell more than the libraries that one may have embedded."""
    for kind in ("programs", "libraries"):
        for name in names:
            for language in LANGUAGES:
                if any(fnmatchcase(name, glob) for glob in getattr(language, kind)):
                    return language
    return BY_NAME["c"]


@dataclass
class Runtime:
    """A language, and the processes or the program of a session that run it."""

    session: Session
    language: Language
    pids: tuple[int, ...]
    program: str | None
    words: Sequence[str]
    by_heart: bool = False

    def has(self, probe: str) -> bool:
        """Whether what is traced has a probe that can fire."""
        try:
            self.places(probe)
        except NotFoundError:
            return False
        return True

    def places(self, probe: str) -> dict[str, Resolved]:
        """The probe in each file that has it; NotFoundError says why there is none, or why it would not fire."""
        if self.by_heart:
            return {self.language.programs[0]: self.session.resolve(usdt(probe))}
        found: dict[str, list[Probe]] = {}
        for one in self._search(probe):
            found.setdefault(one.path, []).append(one)
        firing = sorted(path for path in found if not self._is_silent(path, probe))
        if not firing:
            raise NotFoundError(
                f"{self.what}: {os.path.basename(min(found))} has {probe}, and never fires it", hint=self.language.hint
            )
        for switch in self.language.switches:
            if probe in switch.probes and not all(_is_on(switch, *said) for said in self._started_as()):
                raise NotFoundError(f"{self.what}: {probe} is there, but switched off", hint=switch.hint)
        return {path: resolve_probes(probe, found[path]) for path in firing}

    def calls(self) -> tuple[Calls, ...]:
        """What the language calls a call; NotFoundError where it has no probes for them."""
        if not self.language.calls:
            raise NotFoundError(f"{self.what}: {self.language.name} has no probes for calls", hint=self.language.hint)
        if self.language.calls_note and not self.by_heart:
            note(f"usdtkit: {self.language.calls_note}")
        return self.language.calls

    def sources(self, probe: str) -> list[Source]:
        """Hits of a probe, one source for each file that has it."""
        return [self.session.source(place) for place in self.places(probe).values()]

    def pairs(self, calls: Calls, keep: Mapping[str, Expression]) -> list[Pair]:
        """Calls from entry to return, one pair for each file that has the probes."""
        entries, ends = self.places(calls.entry), self.places(calls.done)
        if endless := entries.keys() - ends.keys():
            name = os.path.basename(min(endless))
            raise NotFoundError(f"{self.what}: {name} has no {calls.done}", hint=self.language.hint)
        return [self.session.pair(entry, ends[path], keep=keep, nesting=DEEPEST) for path, entry in entries.items()]

    def _started_as(self) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """The words and the environment of each process, or those that the command will have."""
        for number in self.pids:
            yield _strings(number, "cmdline"), _strings(number, "environ")
        if self.program is not None:
            yield self.words, [f"{name}={value}" for name, value in os.environ.items()]

    def _is_silent(self, path: str, probe: str) -> bool:
        silent = any(fnmatchcase(os.path.basename(path), glob) and probe in of for glob, of in self.language.silent)
        return silent and not self.has(self.language.unless)

    @property
    def what(self) -> str:
        return f"process {self.pids[0]}" if self.pids else str(self.program)

    def _search(self, probe: str) -> list[Probe]:
        if found := [one for one in self._probes if one.spec == probe]:
            # A program has it from the first of its files that it is in.
            return found if self.program is None else [one for one in found if one.path == found[0].path]
        if found := [one for one in self._elsewhere if one.spec == probe]:
            return found
        raise NotFoundError(
            f"{self.what} has no {probe}", hint=dict(self.language.hints).get(probe, self.language.hint)
        )

    @cached_property
    def _probes(self) -> list[Probe]:
        """Of the processes, or of the files of the program in the order in which they count."""
        if self.program is None:
            return targets.probes_of(targets.mapped_by(self.pids))
        return targets.probes_of(Target(path, path) for path in self.files_of_program())

    @cached_property
    def _elsewhere(self) -> list[Probe]:
        """For a program, those of everything else here: it may load what others have mapped, or will map."""
        if self.program is None:
            return []
        try:
            return targets.find_probes("*:*")
        except NotFoundError:
            return []

    def files_of_program(self) -> Iterator[str]:
        """The files that may have the probes, as far as they are known before it runs."""
        program = os.path.realpath(str(self.program))
        yield program
        beside = os.path.join(os.path.dirname(program), self.language.beside)
        if self.language.beside and os.path.exists(beside):
            yield beside
        if self.language.linked:
            yield from libraries.installed(self.language.linked)


def names_of(calls: Calls, group_size: int = GROUP_IN_KEY, name_size: int = NAME_IN_KEY) -> dict[str, Expression]:
    """What a call's entry says: `group` (a class, file or package; not of every language) and `name`."""
    group = {"group": cstr(calls.group, group_size)} if calls.group else {}
    return {**group, "name": cstr(calls.name, name_size)}


def chosen(source: AnySource, calls: Calls, options: argparse.Namespace) -> AnySource:
    """The calls that -M and -C leave, decided in the kernel at their entry."""
    for argument, pattern in ((calls.name, options.method), (calls.group, options.group)):
        if pattern and argument:
            text = cstr(argument, NAME_SIZE)
            source = source.where(text.matches(pattern) if set(pattern) & set("*?") else text.startswith(pattern))
    return source


def full_name(key: Sequence[str | None]) -> str:
    """CLASS.METHOD, or the method alone, of the values of `names_of`."""
    return ".".join("?" if part is None else str(part) for part in key if part != "")


def added_up(tables: Iterable[Counts]) -> Counter[tuple[Any, ...]]:
    """What came to several tables since the last time, by their keys."""
    total: Counter[tuple[Any, ...]] = Counter()
    for table in tables:
        total.update(table.delta())
    return total


def _process(text: str) -> int:
    if text in BY_NAME:  # as the manuals of bcc's tools have it, and none of these tools
        raise argparse.ArgumentTypeError(f"{text!r} is a language: -l {text}, and then the number of the process")
    return pid(text)


def _language(text: str) -> str:
    return "c" if text == "none" else text  # bcc's word for a program without a runtime


def _is_on(switch: Switch, words: Sequence[str], environment: Sequence[str]) -> bool:
    """Whether a process that was started with these words in this environment fires the probes of the switch."""
    if switch.variable:
        return switch.variable in environment
    more = [line.partition("=")[2].split() for line in environment if line.partition("=")[0] in switch.read_from]
    return any(option in words or any(option in of for of in more) for option in switch.options)


def _strings(number: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{number}/{name}", "rb") as file:  # noqa: PTH123
            return [os.fsdecode(part) for part in file.read().split(b"\0")]
    except PermissionError:
        raise PrivilegeError(f"process {number} may not be looked into", hint="run as root") from None
    except OSError:
        raise NotFoundError(f"no process {number}") from None
