"""The ring buffer of a session → its events, in the order of the buffer or of their time.

Input: `kernel.ring` and the decoders of `events`. Output: lists of events, or columns, for `session`.

Events of several processors are put in order exactly, and without a delay. A program first reserves space in the
buffer, and then reads the clock. So once everything that was reserved before some moment has been read, all events that
come later have a later time: the events before that moment can be sorted and handed out. A record that is reserved but
not yet written holds up the records behind it anyway.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from usdtkit.kernel.ring import Decode, Made, RingBuffer
from usdtkit.trace.events import Columns, Decoders

_time = attrgetter("time_ns")


class Stream:
    """Reads one ring buffer. With `ordered`, the `time_ns` of successive events never decreases."""

    def __init__(self, ring: RingBuffer, size: int, decoders: Decoders, *, ordered: bool) -> None:
        """Take over `ring`, which has `size` bytes; `close` frees it."""
        self.fd = ring.fd
        self._ring = ring
        self._size = size
        self._decoders = decoders
        self._ordered = ordered
        self._held: list[Any] = []  # read, but earlier events may still come
        self._mark: tuple[int, int] | None = None  # a time, and the bytes that were reserved at that time

    def events(self, *, last: bool = False) -> Iterator[list[Any]]:
        """The events that wait in the buffer now, at most as many as it can hold. `last` says that no more can come."""
        for events in self._read(self._decoders.events, last):
            if not self._ordered:
                yield events
                continue
            self._held += events
            if ready := self._ready():
                yield ready
        if self._held and (last or self._ring.consumed >= self._ring.reserved):
            ready, self._held, self._mark = sorted(self._held, key=_time), [], None
            yield ready

    def columns(self) -> Iterator[Columns]:
        """As `events`, as columns of one type each, in the order of the buffer."""
        for types in self._read(self._decoders.columns):
            yield from (columns for columns in types if columns is not None)

    def close(self) -> None:
        """Free the buffer."""
        self._ring.close()

    def _read(self, decode: Decode[list[Made]], all_of_them: bool = False) -> Iterator[list[Made]]:
        left = self._size
        while left > 0 or all_of_them:
            if self._ordered and self._mark is None:
                self._mark = time.monotonic_ns(), self._ring.reserved  # in this order
            part = self._ring.read(decode)
            if part is None:
                return
            left -= part[1]
            yield part[0]

    def _ready(self) -> list[Any]:
        """Those of the held events, in order, before which no other event can come any more."""
        if self._mark is None or self._ring.consumed < self._mark[1]:
            return []
        self._held.sort(key=_time)  # not earlier: a full buffer would be sorted once for each of its parts
        count = bisect_right(self._held, self._mark[0], key=_time)
        ready, self._held, self._mark = self._held[:count], self._held[count:], None
        return ready
