"""The ring buffer of a session → its events, in the order of the buffer or of their time.

Input: `kernel.ring` and the decoders of `events`. Output: lists of events, or columns, for `session`.

How events of several processors are put in order, exactly and without a delay: a program reserves its room in the
buffer first, and takes the time then. So when all that was reserved by some moment has been read, what comes later is
of a later time, and everything up to that moment can be sorted and handed out. A record that was reserved and is not
yet written holds up what is behind it anyway.
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
    """Reads one ring buffer. With `ordered`, the `time_ns` of the events that `events` gives never decreases."""

    def __init__(self, ring: RingBuffer, size: int, decoders: Decoders, *, ordered: bool) -> None:
        """Take over `ring`, of `size` bytes."""
        self.fd = ring.fd
        self._ring = ring
        self._size = size
        self._decoders = decoders
        self._ordered = ordered
        self._held: list[Any] = []  # read, and perhaps not the next in order
        self._mark: tuple[int, int] | None = None  # a moment, and how much had been reserved by then

    def events(self, *, last: bool = False) -> Iterator[list[Any]]:
        """The events that wait in the buffer now, at most as many as have room in it; `last` when no more can come."""
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
        """The same in columns of one type each, and in the order of the buffer."""
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
            found = self._ring.read(decode)
            if found is None:
                return
            left -= found[1]
            yield found[0]

    def _ready(self) -> list[Any]:
        """Of the events that are held, in order, those before which none can come any more."""
        if self._mark is None or self._ring.consumed < self._mark[1]:
            return []
        self._held.sort(key=_time)  # not sooner: of a full buffer, that would be once for each part of it
        count = bisect_right(self._held, self._mark[0], key=_time)
        ready, self._held, self._mark = self._held[:count], self._held[count:], None
        return ready
