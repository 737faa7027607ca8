"""A source of hits in a session, and what to do with them.

Input: resolved places (`specs`) and expressions. Output: hooks with blocks, which `blueprint` builds into a program.
`summarising` has the tables that a source can fill, `fields` the rules for names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Action, Assign, Block, Delete, Emit, Fill, Put, Raw
from usdtkit.bpf.program import Hook
from usdtkit.errors import UsageError
from usdtkit.records import replace
from usdtkit.trace.blueprint import Blueprint
from usdtkit.trace.fields import HEADER, UNITS, as_value, both, free_name, is_free, named, raw_field
from usdtkit.trace.kernelmap import KernelMap
from usdtkit.trace.later import Role
from usdtkit.trace.specs import Resolved, Sought
from usdtkit.trace.summarising import Summarising
from usdtkit.trace.threadvalues import ThreadValues

Self = TypeVar("Self", bound="Source")
AnyPair = TypeVar("AnyPair", bound="Pair")
Keep = Mapping[str, ex.Expression] | Sequence[str]
Key = ex.Expression | str


class Source(Summarising):
    """Hits of one spec. Made by a session's `usdt`, `uprobe`, `uretprobe` and `pair`.

    Fields and keys are given by name (an argument's, or pid, tid, uid, gid, cgroup, cpu, comm, time, ip, caller, probe;
    in a pair also latency and what it keeps; in Go goid; what `derive` named), or as `name=expression`.
    """

    _measured: tuple[str, ...] = ()  # what every hit has besides its arguments

    def __init__(
        self, blueprint: Blueprint, resolved: Resolved, hook: Hook, narrowed: ex.Expression | None = None
    ) -> None:
        """`narrowed`: the condition of `Session.narrow`."""
        self._blueprint = blueprint
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

    def only(self: Self, condition: ex.Expression) -> Self:
        """The same source, whose hits are only those for which `condition` is true: unlike those that `where` leaves
        out, the others are not counted as hits of the session."""
        chosen = self.where(ex.Chosen())
        self._hook.chosen = both(self._hook.chosen, condition)
        return chosen

    def derive(self: Self, *names: str, **values: ex.Operand) -> Self:
        """The same source, in which `values` can be asked for by their names, as arguments can.

        `emit` without names then sends `names` and these values, and a pair's latency. Each name stands
        for one value. UsageError for a name that an argument, or something that a pair keeps, already has.
        """
        builtins = {*ex.BUILTINS} - (set() if self._hook.in_pair else {"latency"})
        used = {*self._names(), *builtins, *self._hook.derived}
        for name in values:
            if name in used or not is_free(name):
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

    def emit(self: Self, *names: str, into: type | ex.Expression | None = None, **fields: ex.Expression) -> Self:
        """Send an event for each hit. Without names: what `derive` has named, or else everything that is known, which
        of several probes are the arguments of each.

        `into` is a class of your own, whose objects the events become: a dataclass, a NamedTuple or a class of attrs.
        Its fields say what is sent, `latency_ns` as well as `pid` or an argument's name; `fields` says what those mean
        that are not known by name. UsageError names the fields that do not fit. A text whose pointer is NULL
        is None, as are a text that could not be read and a stack that could not be taken: annotate these `str | None`.

            class Query(NamedTuple):
                pid: int
                latency_ns: int
                query: str | None

            queries.emit(into=Query)
            for query in session.events(Query):    # a type checker knows query.latency_ns, and no query.latncy_ns
                print(query.latency_ns, query.query)
        """
        if isinstance(into, ex.Expression):  # a field that is called so
            fields, into = {**fields, "into": into}, None
        if into is None and not names and not fields:
            # What a pair measures is that of one hook.
            if self.resolved.parts and not (self._fields or self._hook.in_pair):
                for part in self._parts():
                    part.emit()
                return self
            names = (*self._measured, *self._fields) if self._fields else ()
            fields = {} if self._fields else self.everything()
        expressions = named(names, fields, self._names())
        if clash := [name for name in fields if name in HEADER]:
            raise UsageError(
                f"every event already has a field {clash[0]}", hint=f"use another name: {clash[0]}_={clash[0]}"
            )
        # The header travels with every event.
        sent = {name: value for name, value in expressions.items() if name not in HEADER}
        row = None
        if into is not None:
            from usdtkit.trace.rows import row_type  # lazy: most sessions, and the command line, have no rows

            row = row_type(into)
            sent = row.choose(sent, self._known())
        self._act(Emit(self._blueprint.add_event_type(row), sent))
        return self

    def raw(
        self: Self, text: str, fields: Mapping[str, str], /, *, declarations: str = "", **values: ex.Expression | str
    ) -> Self:
        """Send an event that C of your own fills: statements that set the members of `event`.

        `fields` are their names and types: u8 to u64, i8 to i64, bool, f64, and str or bytes, which are an array NAME
        of the session's `string_size` and NAME_length. `values` are names or expressions that the text finds as
        variables; of a string, its address. `declarations` stands before all functions: maps, structs, functions.
        `goto drop;` sends nothing. Unlike everywhere else, the text is compiled as it is.
        """
        layout = tuple(raw_field(name, type, self._hook.string_size) for name, type in fields.items())
        variables = {name: as_value(value) for name, value in values.items()}
        self._act(Raw(self._blueprint.add_event_type(), layout, text, declarations, variables))
        return self

    def put(self: Self, into: KernelMap, key: ex.Expression, **values: ex.Operand) -> Self:
        """Make an entry of a map of the session, or replace it; every field of the map needs its value."""
        self._act(Put(into._store.number, key, into._store.in_order(values)))
        return self

    def delete(self: Self, from_: KernelMap, key: ex.Expression) -> Self:
        """Delete an entry from a map of the session; nothing happens where there is none."""
        self._act(Delete(from_._store.number, key), everywhere=True)
        return self

    def assign(self: Self, values: ThreadValues, **new: ex.Operand) -> Self:
        """Set values of the thread; those that are left out keep what they hold. All new numbers are computed from what
        the values were before."""
        self._act(Assign(values.number, values.layout, values.by_index(new)), everywhere=True)
        return self

    def everything(self) -> dict[str, ex.Expression]:
        """All that is known of a hit besides its header, as fields for `emit`; names that are in use get a prefix."""
        if self._hook.kind == "return":
            return {"retval": ex.retval}
        return {free_name(name): ex.arg(name) for name in self.arguments}

    def _known(self) -> dict[str, ex.Expression]:
        """Every field that can be asked for by name alone."""
        builtins = {UNITS.get(name, name): ex.Name(name) for name in ex.BUILTINS if name not in HEADER}
        known_here = {free_name(name): ex.Name(name) for name in (*self._names(), *self._hook.derived)}
        return {**builtins, **known_here}

    def _parts(self) -> Iterator[Source]:
        """A source for all probes that have the same arguments, with the condition of this one."""
        self._hook.parted = True
        sought = None if self.resolved.sought is None else Sought(self.resolved.sought.specs)
        for resolved in self.resolved.parts:
            hook = self._blueprint.add_source(resolved)
            self._blueprint.follow(Role.of(replace(resolved, sought=sought), hook))
            part = Source(self._blueprint, resolved, hook, self._narrowed)
            part._condition, part._is_ahead = self._condition, self._is_ahead
            yield part

    def _copy(self: Self) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def _names(self) -> set[str]:
        """Names that mean something else here than everywhere."""
        return {argument.name for argument in self._hook.arguments}

    def _act(self, action: Action, *, everywhere: bool = False) -> None:
        """Do this at the hits that are wanted; `everywhere`, also at those that the session is narrowed away from."""
        narrowed = None if everywhere else self._narrowed
        condition = self._condition if narrowed is None else both(narrowed, self._condition)
        self._blueprint.add_block(self._hook, Block(condition, action), ahead=self._is_ahead)


class Pair(Source):
    """From a start to its end: `latency`, and what `keep` read at the start."""

    latency = ex.latency
    _measured = ("latency",)

    def __init__(
        self,
        blueprint: Blueprint,
        resolved: Resolved,
        start: Source,
        end: Hook,
        narrowed: ex.Expression | None = None,
    ) -> None:
        super().__init__(blueprint, resolved, end, narrowed)
        self.start = start
        """The start as a source of its own: its actions run after `keep` has read its values."""
        self._start = start._hook

    @property
    def keeps(self) -> tuple[str, ...]:
        """The names of what it keeps from the start."""
        return tuple(self._start.start or ())

    def kept(self, name: str) -> ex.Expression:
        """What `keep` read under this name, for conditions and fields."""
        if name not in (self._start.start or {}):
            raise UsageError(f"{self.resolved.what}: this pair keeps no {name!r}", hint="add it to keep=")
        return ex.Name(name)

    def fill(self: AnyPair, source: Source, **texts: ex.Expression) -> AnyPair:
        """Keep these texts at a hit of `source`, a source of the same session, in the pair that is open in that thread.

        Of several, it is the one that began last; a call is not found any more once it has called itself. Pairs with
        a key are found by the value of the key at the hit. Each name is one of `keep`, and a text is kept only where
        the pair has none so far, or an empty one. Hits of `source` are no results: they are not counted. It may have
        a condition (`where`), and no other action. UsageError for another name or kind of value.
        """
        for name in texts:
            self.kept(name)
        self._start.is_filled = True
        filled = Fill(self._start.index, {name: ex.lift(text) for name, text in texts.items()})
        source._act(filled, everywhere=True)
        return self

    def everything(self) -> dict[str, ex.Expression]:
        """The latency, what the start kept, and what is known of the end."""
        kept = {free_name(name): ex.Name(name) for name in self._start.start or {}}
        return {"latency_ns": ex.latency, **kept, **super().everything()}

    def _names(self) -> set[str]:
        return super()._names() | set(self._start.start or ())


def kept_fields(keep: Keep) -> dict[str, ex.Expression]:
    """What a pair keeps, by name: a list names arguments, a mapping gives expressions."""
    if isinstance(keep, Mapping):
        return dict(keep)
    return {name: ex.Name(name) for name in keep}
