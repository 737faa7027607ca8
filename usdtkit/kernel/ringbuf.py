"""A BPF ring buffer read in place: many records at a time, in the order in which they were reserved.

Input: the `Map` of the ring. Output: the memory in which records wait, for `trace.events` to decode. What did not fit
is counted by the program in the kernel, see `program`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from usdtkit._ffi import check, ffi, lib
from usdtkit.kernel.maps import Map

Made = TypeVar("Made")
Decode = Callable[[Any, int], tuple[Made, int]]

# Bytes of records that are taken at a time: as many as a processor's own cache holds.
BATCH = 1 << 18
# See native/records.h.
_HEADER = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class RingBuffer:
    """The reading side of one ring buffer. `fd` is readable (poll) when records wait."""

    def __init__(self, ring: Map) -> None:
        handle = ffi.new("usdtkit_ring **")
        check(lib.usdtkit_ring_open(ring.fd, ring.max_entries, handle), "mapping the BPF ring buffer")
        self._ring = ffi.gc(handle[0], lib.usdtkit_ring_close)
        self._data = ffi.new("void const **")
        self._reading = False
        self._open = True
        self.fd = ring.fd

    def close(self) -> None:
        """Unmap the memory, or have the `read` do it that uses it now."""
        self._open = False
        self._unmap()

    def read(self, decode: Decode[Made]) -> tuple[Made, int] | None:
        """What `decode` makes of records that wait, and how many bytes of the ring they were; None where none do.

        It gets the memory (native/records.h says how records lie in it), which is only there until it returns, and how
        many bytes are enough; it returns what it has made, and how many bytes the kernel gets back.
        """
        # A finaliser that reads in the midst of this would get the same records.
        if not self._open or self._reading:
            return None
        waiting = lib.usdtkit_ring_waiting(self._ring, self._data)
        if not waiting:
            return None
        self._reading = True
        try:
            made, taken = decode(ffi.buffer(self._data[0], waiting), BATCH)
            lib.usdtkit_ring_advance(self._ring, taken)
        finally:
            self._reading = False
            self._unmap()
        return (made, taken) if taken else None

    def _unmap(self) -> None:
        if self._ring is not None and not self._open and not self._reading:
            ffi.release(self._ring)
            self._ring = None

    @property
    def reserved(self) -> int:
        """Bytes that programs have reserved, ever, written or not."""
        return int(lib.usdtkit_ring_reserved(self._ring))

    @property
    def taken(self) -> int:
        """Bytes that were read, ever."""
        return int(lib.usdtkit_ring_taken(self._ring))

    def payloads(self) -> Iterator[bytes]:
        """Those of all records that wait: for rings whose records are few."""
        while found := self.read(_copied):
            yield from found[0]


def _copied(data: Any, enough: int) -> tuple[list[bytes], int]:
    """The payloads, as `usdtkit_next_record` of native/records.h finds them."""
    payloads = []
    at = 0
    while at < min(len(data), enough):
        header = int.from_bytes(data[at : at + 4], "little")
        if header & _BUSY:
            break
        length = header & ~_DISCARDED
        if not header & _DISCARDED:
            payloads.append(data[at + _HEADER : at + _HEADER + length])
        at += (_HEADER + length + 7) // 8 * 8
    return payloads, at
