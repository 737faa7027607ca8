"""Where the probes of a language are in the processes or the program that a session traces.

Input: a `Language`, and a session. Output: places, by the file that has them. A probe that is present but would never
fire is an error here, with what to do about it: another build, or another way to start the program.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH110, PTH118, PTH119, PTH120, PTH123

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

from usdtkit import libraries, targets
from usdtkit.errors import NotFoundError, PrivilegeError, as_root
from usdtkit.model import Probe, Target
from usdtkit.providers.runtimes.language import Language, StartCondition
from usdtkit.trace import Session
from usdtkit.trace.command import find_program
from usdtkit.trace.specs import Resolved, resolve_probes, sought_probes


class ProbePlaces:
    """The probes of a language in what a session traces.

    `pids` are its processes, and `program` is the path of its command. Without either, the probes are those that the
    session itself finds.
    """

    def __init__(self, session: Session, language: Language) -> None:
        self.session = session
        self.language = language
        self.pids, self.program = traced_by(session)

    @property
    def what(self) -> str:
        """What is traced, for messages."""
        if self.program is not None:
            return self.program
        return f"process {self.pids[0]}" if self.pids else "this machine"

    def has(self, probe: str) -> bool:
        """Whether the probe is there and can fire."""
        try:
            self.of(probe)
        except NotFoundError:
            return False
        return True

    def of(self, probe: str) -> dict[str, Resolved]:
        """The places of a probe, by the path of each file that has it.

        NotFoundError says why there is none, or why those that are there would not fire.
        """
        by_file: dict[str, list[Probe]] = {}
        for found in self._search(probe):
            by_file.setdefault(found.path, []).append(found)
        firing = sorted(path for path in by_file if not self._is_silent(path, probe))
        if not firing:
            name = os.path.basename(min(by_file))
            raise NotFoundError(f"{self.what}: {name} has {probe}, but never fires it", hint=self.language.hint)
        for condition in self.language.conditions:
            if probe in condition.probes and not all(_is_met(condition, *start) for start in self._starts()):
                raise NotFoundError(f"{self.what} has {probe}, but it is switched off", hint=condition.hint)
        sought = sought_probes(by_file[firing[0]])  # one for all files, which are alternatives for later ones
        return {path: resolve_probes(probe, by_file[path], sought) for path in firing}

    def files_of_program(self) -> list[str]:
        """The files that may have the probes of the command, as far as they are known before it runs."""
        if self.program is None:
            return []
        program = os.path.realpath(self.program)
        files = [program]
        beside = os.path.join(os.path.dirname(program), self.language.beside)
        if self.language.beside and os.path.exists(beside):
            files.append(beside)
        if self.language.linked:
            files += libraries.installed(self.language.linked)
        return files

    def _is_silent(self, path: str, probe: str) -> bool:
        name = os.path.basename(path)
        return any(
            fnmatchcase(name, silent.file) and probe in silent.probes and not self.has(silent.unless)
            for silent in self.language.silent
        )

    def _starts(self) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """The command line and the environment of each process, or those that the command will have."""
        for pid in self.pids:
            yield _strings(pid, "cmdline"), _strings(pid, "environ")
        if self.program is not None:
            yield self.session.command, [f"{name}={value}" for name, value in os.environ.items()]

    def _search(self, probe: str) -> list[Probe]:
        if not self.pids and self.program is None:
            return self.session.find_probes(probe)
        if here := [found for found in self._probes if found.spec == probe]:
            # A program takes the probe from the first of its files that has it.
            return here if self.program is None else [found for found in here if found.path == here[0].path]
        if elsewhere := [found for found in self._elsewhere if found.spec == probe]:
            return elsewhere
        hint = dict(self.language.hints).get(probe, self.language.hint)
        raise NotFoundError(f"{self.what} has no {probe}", hint=hint)

    @cached_property
    def _probes(self) -> list[Probe]:
        """All probes of the processes, or of the program's files in the order in which it would take them."""
        if self.program is None:
            return targets.probes_of(targets.mapped_by(self.pids))
        return targets.probes_of(Target(path, path) for path in self.files_of_program())

    @cached_property
    def _elsewhere(self) -> list[Probe]:
        """All other probes of this machine, for a program: it may map a file that others have mapped."""
        if self.program is None:
            return []
        try:
            return targets.find_probes("*:*")
        except NotFoundError:
            return []


def traced_by(session: Session) -> tuple[tuple[int, ...], str | None]:
    """The processes whose files say what a session can trace, and the path of the command that it will start.

    Neither is known of a session that traces every process, and of one that is offline.
    """
    if session.offline:
        return (), None
    return session.search_pids, find_program(session.command) if session.command else None


def _is_met(condition: StartCondition, words: Sequence[str], environment: Sequence[str]) -> bool:
    """Whether a process with this command line and this environment meets the condition."""
    if condition.variable:
        return condition.variable in environment
    settings = [line.partition("=") for line in environment]
    given = {*words, *(word for name, _, value in settings if name in condition.read_from for word in value.split())}
    return not given.isdisjoint(condition.options)


def _strings(pid: int, name: str) -> list[str]:
    """A file of /proc/PID that consists of strings with a NUL behind each."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return [os.fsdecode(part) for part in file.read().split(b"\0")]
    except PermissionError:
        raise PrivilegeError(f"process {pid} may not be inspected", hint=as_root()) from None
    except OSError:
        raise NotFoundError(f"no process {pid}") from None
