"""A source of hits in a session, and what to do with them.

Input: resolved places (`specs`) and expressions. Output: hooks with blocks, which `definition` builds into a program.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Action, Block, Delete, Emit, Put, Raw
from usdtkit.bpf.layout import Field, Kind
from usdtkit.bpf.program import Hook
from usdtkit.errors import UsageError
from usdtkit.trace.events import HEADER, UNITS
from usdtkit.trace.kernelmap import KernelMap
from usdtkit.trace.specs import Resolved
from usdtkit.trace.summarising import Summarising, as_value

if TYPE_CHECKING:
    from usdtkit.trace.definition import Definition

Self = TypeVar("Self", bound="Source")
Keep = Mapping[str, ex.Expression] | Sequence[str]
Key = ex.Expression | str
# A struct of an event has members of 64 bits.
RAW_NUMBERS: dict[str, Kind] = {
    **dict.fromkeys(("u8", "u16", "u32", "u64"), "u64"),
    **dict.fromkeys(("i8", "i16", "i32", "i64"), "i64"),
    **{"bool": "bool", "f64": "f64"},
}


class Source(Summarising):
    """Hits of one spec. Made by a session's `usdt`, `uprobe`, `uretprobe` and `pair`.

    Fields and keys are given by name (an argument's, or pid, tid, uid, gid, cgroup, cpu, comm, time, ip, caller, probe;
    in a pair also latency and what it keeps; in Go goroutine; what `derive` named), or as `name=expression`.
    """

    _measured: tuple[str, ...] = ()  # what every hit has besides its arguments

    def __init__(
        self, session: Definition, resolved: Resolved, hook: Hook, narrowed: ex.Expression | None = None
    ) -> None:
        """`narrowed`: the condition of `Session.narrow`."""
        self._session = session
        self._hook = hook
        self._narrowed = narrowed
        self._condition: ex.Expression | None = None
        self._fields: tuple[str, ...] = ()  # what `derive` has named
        self._is_ahead = False
        self.resolved = resolved

    def _members(self) -> Sequence[Source]:
        return (self,)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that can be asked for here."""
        return tuple(argument.name for argument in self._hook.arguments if argument.type != "unreadable")

    def where(self: Self, condition: ex.Expression) -> Self:
        """The same source, with only the hits for which `condition` is true."""
        filtered = self._copy()
        filtered._condition = both(self._condition, condition)
        return filtered

    def derive(self: Self, *names: str, **values: ex.Expression) -> Self:
        """The same source, in which `values` can be asked for by their names, as arguments can.

        `emit` without names then sends `names` and these values, and a pair's latency. A name is given to one value
        only; the name of an argument, or of what a pair keeps, cannot be given again. UsageError.
        """
        taken = {*self._names(), *ex.BUILTINS, *self._hook.derived}
        for name in values:
            if name in taken or not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
                raise UsageError(f"{self.resolved.what}: a value cannot be called {name!r}", hint="another name")
        self._hook.derived.update({name: ex.lift(value) for name, value in values.items()})
        derived = self._copy()
        derived._fields = (*self._fields, *names, *values)
        return derived

    def ahead(self: Self) -> Self:
        """The same source, whose actions happen before those that it was given so far.

        A provider that changes a map of the session at a hit returns such a source, so that the actions of its callers
        find the map as it was.
        """
        first = self._copy()
        first._is_ahead = True
        return first

    def emit(self: Self, *names: str, **fields: ex.Expression) -> Self:
        """Send an event for each hit. Without names: what `derive` has named, or else everything that is known."""
        if not names and not fields:
            names = (*self._measured, *self._fields) if self._fields else ()
            fields = {} if self._fields else self.everything()
        wanted = self._named(names, fields)
        # Every event carries the header.
        own = {name: value for name, value in wanted.items() if name not in HEADER or name in fields}
        clash = [name for name in own if name in HEADER]
        if clash:
            raise UsageError(
                f"an event has a field {clash[0]} of its own", hint=f"another name: {clash[0]}_={clash[0]}"
            )
        self._act(Emit(self._session.add_event_type(), own))
        return self

    def raw(
        self: Self, text: str, fields: Mapping[str, str], /, *, declarations: str = "", **values: ex.Expression | str
    ) -> Self:
        """Send an event that C of your own fills: statements that set the members of `event`.

        `fields` are their names and types: u8 to u64, i8 to i64, bool, f64, and str or bytes, which are an array NAME
        of the session's `string_size` and NAME_length. `values` are names or expressions that the text finds as
        variables; of a string, its address. `declarations` stands before all functions: maps, structs, functions.
        `goto drop;` sends nothing. Unlike everywhere else, what stands here is compiled as it is.
        """
        layout = tuple(self._raw_field(name, type) for name, type in fields.items())
        wanted = {name: as_value(value) for name, value in values.items()}
        self._act(Raw(self._session.add_event_type(), layout, text, declarations, wanted))
        return self

    def put(self: Self, into: KernelMap, key: ex.Expression, **values: ex.Operand) -> Self:
        """Make an entry of a map of the session, or replace it; every field of the map needs its value."""
        self._act(Put(into.number, key, into.in_order(values)))
        return self

    def delete(self: Self, from_: KernelMap, key: ex.Expression) -> Self:
        """Take an entry from a map of the session; nothing happens where there is none."""
        self._act(Delete(from_.number, key), everywhere=True)
        return self

    def everything(self) -> dict[str, ex.Expression]:
        """All that is known of a hit besides its header, as fields for `emit`; names that are taken get a prefix."""
        if self._hook.kind == "return":
            return {"retval": ex.retval}
        return {_free_name(name): ex.arg(name) for name in self.arguments}

    def _copy(self: Self) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def _named(self, names: Sequence[str], fields: Mapping[str, ex.Expression]) -> dict[str, ex.Expression]:
        if not all(isinstance(name, str) for name in names):
            raise UsageError("an expression stands where a name is expected", hint="give it one: name=expression")
        chosen_elsewhere = self._names()
        wanted: dict[str, ex.Expression] = {
            _free_name(name) if name in chosen_elsewhere else UNITS.get(name, name): ex.Name(name) for name in names
        }
        for name, value in fields.items():
            if name in wanted or not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
                raise UsageError(f"a field cannot be called {name!r} here", hint="each name once, a Python identifier")
            wanted[name] = ex.lift(value)
        return wanted

    def _raw_field(self, name: str, type: str) -> Field:
        if not name.isidentifier() or not name.isascii() or name.startswith("_") or name in HEADER:
            raise UsageError(f"a field cannot be called {name!r} here", hint="a name that C and Python allow")
        if type in ("str", "bytes"):
            return Field(name, "str" if type == "str" else "bytes", self._hook.string_size)
        if type not in RAW_NUMBERS:
            raise UsageError(f"a field {name!r} of type {type!r}", hint=f"one of {', '.join(RAW_NUMBERS)}, str, bytes")
        return Field(name, RAW_NUMBERS[type])

    def _names(self) -> set[str]:
        """Names that come before the builtin ones."""
        return {argument.name for argument in self._hook.arguments}

    def _act(self, action: Action, *, everywhere: bool = False) -> None:
        """Do this at the hits that are wanted; `everywhere`, also at those that the session is narrowed away from."""
        self._session.check_open()
        narrowed = self._narrowed is not None and not everywhere
        condition = both(self._narrowed, self._condition) if narrowed else self._condition
        hook = self._hook
        hook.blocks.insert(hook.ahead if self._is_ahead else len(hook.blocks), Block(condition, action))
        hook.ahead += self._is_ahead


class Pair(Source):
    """From a start to its end: `latency`, and what `keep` took at the start."""

    latency = ex.latency
    _measured = ("latency",)

    def __init__(
        self,
        session: Definition,
        resolved: Resolved,
        start: Source,
        end: Hook,
        narrowed: ex.Expression | None = None,
    ) -> None:
        super().__init__(session, resolved, end, narrowed)
        self.start = start
        """The start as a source of its own: its actions come behind what `keep` takes."""
        self._start = start._hook

    @property
    def keeps(self) -> tuple[str, ...]:
        """The names of what it keeps from the start."""
        return tuple(self._start.start or ())

    def kept(self, name: str) -> ex.Expression:
        """What `keep` took under this name, for conditions and fields."""
        if name not in (self._start.start or {}):
            raise UsageError(f"{self.resolved.what}: this pair keeps no {name!r}", hint="add it to keep=")
        return ex.Name(name)

    def everything(self) -> dict[str, ex.Expression]:
        """The latency, what the start kept, and what is known of the end."""
        kept = {_free_name(name): ex.Name(name) for name in self._start.start or {}}
        return {"latency_ns": ex.latency, **kept, **super().everything()}

    def _names(self) -> set[str]:
        return super()._names() | set(self._start.start or ())


def kept_fields(keep: Keep) -> dict[str, ex.Expression]:
    """What a pair keeps, by name: a list names arguments, a mapping gives expressions."""
    if isinstance(keep, Mapping):
        return dict(keep)
    return {name: ex.Name(name) for name in keep}


def both(first: ex.Expression | None, second: ex.Expression | None) -> ex.Expression | None:
    """A condition that is true where both are; None is always true."""
    if second is None:
        return first
    second = ex.lift(second)
    return second if first is None else first & second


def _free_name(name: str) -> str:
    """An argument's name (its application chose it) as a field of an event."""
    taken = (
        name in (*HEADER, *ex.BUILTINS) or keyword.iskeyword(name) or name.startswith("_") or not name.isidentifier()
    )
    return f"arg_{re.sub(r'[^0-9A-Za-z_]', '_', name)}" if taken else name
