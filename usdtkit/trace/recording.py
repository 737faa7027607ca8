"""What stands in for a session and stops where one would load: its program's text, for whoever wants no more of it.

Input: what a tool does with a session. Output: texts, for `usdtkit bundle`. What a program says depends on the tool and
its options, not on the machine, so that for software which `usdtkit.signatures` knows there need not be any here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from usdtkit.argumenttypes import width_of
from usdtkit.elf.notes import name_operands
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import NotFoundError
from usdtkit.model import Function, Probe
from usdtkit.signatures import known_arguments
from usdtkit.trace.definition import Definition
from usdtkit.trace.plan import Planned
from usdtkit.trace.specs import FunctionSpec, Resolved, Spec


class Recorded(Exception):
    """Raised where a session would have started."""


class Recording(Definition):
    """Takes what a `Session` takes, and starts nothing: `start` writes its program to `texts`, and raises `Recorded`.

    With `lacking`, nothing is looked for on this machine: sources are what `usdtkit.signatures` knows of them, and the
    first so many that are looked for do not exist, which shows what a tool does instead.
    """

    def __init__(
        self,
        texts: list[str],
        *,
        lacking: int | None = None,
        pid: int | Iterable[int] | None = None,
        command: Sequence[str] | None = None,
        string_size: int = 128,
        **running: Any,
    ) -> None:
        """`running`: what a session takes besides, of which no program speaks."""
        super().__init__(pid=pid, command=command, string_size=string_size)
        self._texts = texts
        self._lacking = lacking

    def start(self, announce: Callable[[list[Planned]], None] | None = None) -> None:
        """Record, and raise `Recorded`."""
        self.check_startable()
        self._texts.append(self.program().text)
        raise Recorded

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was opened."""

    def find_functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        if self._lacking is None:
            return super().find_functions(library, patterns)
        self._lack()
        # Those that are asked for by their names, as if all were there.
        names = [one for one in patterns if isinstance(one, str) and not set(one) & set("*?[")]
        return [Function(library, name, 0, 0, 0) for name in names]

    def find_probes(self, name: str, path: str | None = None) -> list[Probe]:
        if self._lacking is None:
            return super().find_probes(name, path)
        self._lack()
        provider, _, probe = name.partition(":")
        known = known_arguments(provider, probe)
        if known is None:
            raise NotFoundError(f"what arguments {name} has is not known without a program that has it")
        arguments = name_operands(sum(width_of(type) for _, type in known), known)
        return [Probe(path or "", provider, probe, (), arguments or ())]

    def resolve(self, spec: Spec | Resolved) -> Resolved:
        if self._lacking is None or not isinstance(spec, FunctionSpec):
            return super().resolve(spec)
        self._lack()
        return Resolved(spec.what, "return" if spec.on_return else "entry", spec.arguments_of(spec.functions), ())

    def _lack(self) -> None:
        if self._lacking:
            self._lacking -= 1
            raise NotFoundError("this one is said to be absent")
