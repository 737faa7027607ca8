"""Records from the ring buffer → Python objects with named fields, or columns.

Input: the memory of `kernel.ring`, and the layouts of `bpf.program`. Output: events of one type for each `emit`, with
`time_ns` (CLOCK_MONOTONIC), `pid`, `tid` and `probe` (the probe's or function's name) before its other fields. The work
is done in C (native/events.c), many events at a time. `rows` turns them into objects of a user's class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usdtkit import _events
from usdtkit.bpf.layout import Field, Kind, Layout
from usdtkit.bpf.program import Program
from usdtkit.bpf.statements import SIZES
from usdtkit.model import Truncated, TruncatedBytes
from usdtkit.trace.fields import HEADER

if TYPE_CHECKING:
    from usdtkit.trace.rows import RowType

Event = _events.Event
Texts = _events.Texts

_CODES = {
    "u64": "Q",
    "i64": "q",
    "bool": "?",
    "f64": "d",
    "str": "s",
    "bytes": "b",
    "stack": "S",
    "pyframe": "S",
    "probe": "Q",
}
_ITEMS: dict[str, Any] = {"u64": "Q", "i64": "q", "bool": "Q", "f64": "d", "probe": "Q"}  # of a column


class Columns:
    """Many events of one type, a sequence for each field: `columns["latency_ns"]`.

    Numbers are memoryviews of 8-byte items, which numpy.asarray takes without a copy, with 0 in place of None. Strings
    are `Texts`; stacks and `probe` are lists.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __len__(self) -> int:
        return len(self._fields["probe"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def keys(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(self._fields)


class Decoders:
    """Reads the events that one program sends. `rows` has an entry for each type of event: the class that its events
    become, or None. `probes` are the names of the probes by their numbers; `name` adds those that are found later.

    `known` makes stacks, and what else the program sends by its number, by the kind of the field.
    """

    def __init__(
        self,
        program: Program,
        rows: Sequence[RowType | None],
        probes: dict[int, str],
        known: Mapping[Kind, Callable[[int], Any]],
    ) -> None:
        self.name(probes)
        types = len(rows)
        records = {kind: layout.with_probes(probes) for kind, layout in program.records.items()}
        self._fields = [records[number * SIZES].fields for number in range(types)]
        self._known = known
        self._makers = _Makers(rows, self._fields) if any(rows) else None
        # Every kind has a decoder, also those that a type of few sizes never sends.
        self._decoders = tuple(
            _decoder(records.get(kind) or records[kind // SIZES * SIZES], known, rows[kind // SIZES], kind // SIZES)
            for kind in range(types * SIZES)
        )
        self._groups = bytes(kind // SIZES for kind in range(types * SIZES))

    def name(self, probes: Mapping[int, str]) -> None:
        """From now on the probes have these names, by number from 0."""
        self._probes = tuple(probes.values())

    def events(self, data: Any, enough: int) -> tuple[list[Event], int]:
        """The events in a ring's memory, until `enough` bytes of it, and how many bytes they were."""
        return _events.decode(data, enough, self._decoders, self._probes)

    def finished(self, events: list[Event]) -> list[Any]:
        """The same events, those of a type with a class of the user's as objects of that."""
        makers = self._makers
        return events if makers is None else [makers[type(event)](event) for event in events]

    def columns(self, data: Any, enough: int) -> tuple[list[Columns | None], int]:
        """The same as columns, one for each type; None for a type without events."""
        types, consumed = _events.columns(data, enough, self._decoders, self._probes, self._groups)
        return [
            None if raw is None else Columns(dict(self._typed(fields, raw)))
            for fields, raw in zip(self._fields, types, strict=False)
        ], consumed

    def _typed(self, fields: Sequence[Field], raw: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        time_ns, pid, tid, probe, *own = raw
        for name, column in (("time_ns", time_ns), ("pid", pid), ("tid", tid)):
            yield name, memoryview(column).cast("Q")
        yield "probe", probe
        for field, column in zip(fields, own, strict=True):
            if known := self._known.get(field.kind):
                yield field.name, [known(id) for id in memoryview(column).cast("Q")]
            else:
                yield field.name, column if field.is_text else memoryview(column).cast(_ITEMS[field.kind])


class _Makers(dict[type, Callable[[Event], Any]]):
    """By the type of an event, what makes a row of it; filled as events of the types come."""

    def __init__(self, rows: Sequence[RowType | None], fields: Sequence[Sequence[Field]]) -> None:
        super().__init__()
        self._by_fields = {}
        for number, (row, own) in enumerate(zip(rows, fields, strict=True)):
            if row is not None:
                names = {field.name: _row_field(field.name, number) for field in own}
                self._by_fields[(*HEADER, *names.values())] = row.maker(names)

    def __missing__(self, type: type[Event]) -> Callable[[Event], Any]:
        self[type] = maker = self._by_fields.get(type._fields, _unchanged)
        return maker


def _unchanged(event: Event) -> Event:
    return event


def _row_field(name: str, number: int) -> str:
    """A field of an event that becomes a row, with the number of its type: events with equal fields are of one class,
    though they become rows of several."""
    return f"{name} of type {number}"


def _decoder(
    layout: Layout, known: Mapping[Kind, Callable[[int], Any]], row: RowType | None, number: int
) -> _events.Decoder:
    fields = zip(layout.fields, layout.offsets, layout.capacities, strict=True)
    described = tuple(
        (
            *(_CODES[field.kind], offset, 16 if field.optional else field.size, size),
            known.get(field.kind) or _names(field, layout),
        )
        for field, offset, size in fields
    )
    names = [field.name if row is None else _row_field(field.name, number) for field in layout.fields]
    return _events.Decoder((*HEADER, *names), described, Truncated, TruncatedBytes)


def _names(field: Field, layout: Layout) -> dict[int, str] | None:
    """The names of a field's numbers. Those of probes are not copied, because more may come."""
    return layout.probes if field.kind == "probe" else {number: name for name, number in field.names} or None


def wall_time(time_ns: int) -> float:
    """Seconds since the epoch for an event's `time_ns`."""
    return wall_ns(time_ns) / 1e9


def wall_ns(time_ns: int) -> int:
    """Nanoseconds since the epoch for an event's `time_ns`."""
    return time_ns + _clock.offset()


class _WallClock:
    """How far the wall clock is ahead of CLOCK_MONOTONIC. Measured again now and then, because it is slewed and set."""

    EVERY_NS = 10_000_000_000

    def __init__(self) -> None:
        self._offset = 0
        self._until = 0

    def offset(self) -> int:
        """Nanoseconds. Not measured for each event: a preemption between two readings would change their order."""
        if time.monotonic_ns() >= self._until:
            readings = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(5)]
            before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
            self._offset = wall - (before + after) // 2
            self._until = after + self.EVERY_NS
        return self._offset


_clock = _WallClock()
