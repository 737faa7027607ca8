"""Where a session finds probes and functions: on this machine, or in the tables of `usdtkit.signatures`.

Input: the names that a user gives, and the processes or the program that are traced. Output: `Probe`s, `Function`s and
`Resolved` places for `definition`. `ThisMachine` reads the files that the processes map. `Signatures` reads no file, so
that a program can be built for software that is not installed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from usdtkit import linkage, targets
from usdtkit.argumenttypes import width_of
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import NotFoundError
from usdtkit.model import Function, Probe
from usdtkit.naming import name_of
from usdtkit.signatures import known_arguments
from usdtkit.trace.specs import FunctionSpec, Resolved


class Finder(Protocol):
    """Finds the probes and functions that a user names, for a `Definition`. Every method raises NotFoundError."""

    def probes(self, name: str, path: str | None) -> list[Probe]:
        """The probes of that name (globs allowed) in the file at `path`, or in everything that is traced."""

    def functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        """The functions of a library that match any of the patterns."""

    def places(self, spec: FunctionSpec) -> Resolved:
        """The places of a spec of functions."""

    def remarks(self) -> list[str]:
        """Sentences for the user that say where functions were found, if that is not obvious."""


class ThisMachine:
    """Finds probes and functions in the files that processes map, or that a program will map."""

    def __init__(self, pids: tuple[int, ...], program: str | None) -> None:
        """`pids`: the processes to search; () searches all. `program`: the path of the command that will be started."""
        self._pids = pids
        self._program = program
        self._remarks: dict[tuple[str, str], dict[str, None]] = {}
        self._named: set[tuple[str, str]] = set()  # (file, name) of functions of the C library that were named exactly

    def probes(self, name: str, path: str | None) -> list[Probe]:
        if self._program is not None and path is None:
            with contextlib.suppress(NotFoundError):
                return targets.find_probes(name, path=self._program)
        return targets.find_probes(name, pids=self._pids, path=path)

    def functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        linked = linkage.find(library, patterns, pids=self._pids, program=self._program)
        for before, names, after in linked.remarks:
            self._remarks.setdefault((before, after), {}).update(dict.fromkeys(names))
        if linked.missing is not None:
            raise linked.missing
        if linkage.is_c(library):
            self._named.update(
                (function.path, function.name) for function in linked.functions if function.name in patterns
            )
        return linked.functions

    def places(self, spec: FunctionSpec) -> Resolved:
        return spec.resolve(self._pids, self.functions(spec.library, spec.functions))

    def remarks(self) -> list[str]:
        remarks = [linkage.Remark(before, tuple(names), after) for (before, after), names in self._remarks.items()]
        if self._pids and self._named:
            remarks += linkage.namesakes(self._named, self._pids)
        return [remark.text for remark in remarks]


class Signatures:
    """Takes from `usdtkit.signatures` what probes and functions look like, and finds no places for them.

    The text of a program does not depend on the places, so it is the one that a machine with the software would build.
    The first `lacking` searches find nothing, which shows what a tool does on machines that lack these functions.
    """

    def __init__(self, lacking: int = 0) -> None:
        self._lacking = lacking

    def probes(self, name: str, path: str | None) -> list[Probe]:
        self._search()
        provider, _, probe = name.partition(":")
        known = known_arguments(provider, probe)
        if known is None:
            raise NotFoundError(f"the arguments of {name} are only known on a machine that has a program with it")
        from usdtkit.elf.notes import name_operands  # lazy: a session that is not offline reads notes only if it must

        arguments = name_operands(sum(width_of(type) for _, type in known), known)
        return [Probe(path or "", provider, probe, (), arguments or ())]

    def functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        self._search()
        names = map(name_of, patterns)
        return [Function(library, name, 0, 0, 0) for name in names if name is not None]

    def places(self, spec: FunctionSpec) -> Resolved:
        self._search()
        return Resolved(spec.what, "return" if spec.on_return else "entry", spec.arguments_of(spec.functions), ())

    def remarks(self) -> list[str]:
        return []

    def _search(self) -> None:
        if self._lacking:
            self._lacking -= 1
            raise NotFoundError("this session was asked to find nothing here")
