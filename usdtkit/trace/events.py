"""Records from the ring buffer → Python objects with named fields.

Input: payloads from `bpf.ringbuf`, and the layouts of `bpf.program`. Output: one namedtuple class for each `emit`,
with `time_ns` (CLOCK_MONOTONIC), `pid`, `tid` and `probe` (the probe's or function's name) before its own fields.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from usdtkit.bpf.layout import Layout

HEADER = ("time_ns", "pid", "tid", "probe")
# Fields say their units.
UNITS = {"latency": "latency_ns", "time": "time_ns"}
RECORD_KIND_SIZE = 4


class EventType:
    """What one `emit` sends. `columns` are its fields in the order in which they were asked for."""

    def __init__(self, layout: Layout, columns: Sequence[str]) -> None:
        own = [field.name for field in layout.fields]
        self.columns = tuple(columns)
        self._layout = layout
        self._class: Any = _event_class([*HEADER, *own])
        self._make = self._class._make

    def decode(self, payload: memoryview, probes: Sequence[str]) -> Any:
        """The event in a record; `probes` gives names to the numbers of probes."""
        _, probe, time_ns, pid, tid, *own = self._layout.decode(payload)
        return self._make((time_ns, pid, tid, probes[probe], *own))

    def makes(self, event: Any) -> bool:
        """Whether an event is of this type."""
        return isinstance(event, self._class)


def _event_class(fields: Sequence[str]) -> Any:
    return namedtuple("Event", fields)


def record_kind(payload: memoryview) -> int:
    """Which of a program's event types a record is of."""
    return int.from_bytes(payload[:RECORD_KIND_SIZE], "little")


def wall_time(time_ns: int) -> float:
    """Seconds since the epoch for an event's `time_ns`."""
    return (time_ns + _clock.offset()) / 1e9


class _WallClock:
    """How far the wall clock is ahead of CLOCK_MONOTONIC, measured now and then, as it is slewed and set."""

    EVERY_NS = 10_000_000_000

    def __init__(self) -> None:
        self._offset = 0
        self._until = 0

    def offset(self) -> int:
        """Nanoseconds. Measuring for each event would let a preemption between two clocks change their order."""
        if time.monotonic_ns() >= self._until:
            readings = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(5)]
            before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
            self._offset = wall - (before + after) // 2
            self._until = after + self.EVERY_NS
        return self._offset


_clock = _WallClock()
