"""A BPF ring buffer, read in place: many records at a time, in the order in which programs reserved them.

Input: the `Map` of the ring. Output: the memory in which records wait, which `usdtkit.trace` decodes. How records lie
in it, native/records.h alone knows. Records that do not fit into the ring are counted by the program in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from usdtkit._ffi import check, ffi, lib
from usdtkit.kernel.maps import Map

Made = TypeVar("Made")
Decode = Callable[[Any, int], tuple[Made, int]]

# Bytes of records that are decoded at a time: as many as a processor's cache holds.
BATCH = 1 << 18


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
        """Unmap the memory. If a `read` is using it now, that `read` unmaps it when it ends."""
        self._open = False
        self._unmap()

    def read(self, decode: Decode[Made]) -> tuple[Made, int] | None:
        """What `decode` makes of the records that wait, and how many bytes of the ring they were; None if none wait.

        `decode` is given the memory, which is valid until it returns, and how many bytes are enough. It returns its
        result, and how many bytes the kernel can use again.
        """
        # A finaliser that reads while this runs would get the same records.
        if not self._open or self._reading:
            return None
        waiting = lib.usdtkit_ring_waiting(self._ring, self._data)
        if not waiting:
            return None
        self._reading = True
        try:
            made, consumed = decode(ffi.buffer(self._data[0], waiting), BATCH)
            lib.usdtkit_ring_advance(self._ring, consumed)
        finally:
            self._reading = False
            self._unmap()
        return (made, consumed) if consumed else None

    def _unmap(self) -> None:
        if self._ring is not None and not self._open and not self._reading:
            ffi.release(self._ring)
            self._ring = None

    @property
    def reserved(self) -> int:
        """Bytes that programs have ever reserved, whether or not they have written them."""
        return int(lib.usdtkit_ring_reserved(self._ring))

    @property
    def consumed(self) -> int:
        """Bytes that were ever read and given back to the kernel."""
        return int(lib.usdtkit_ring_consumed(self._ring))

    def payloads(self) -> Iterator[bytes]:
        """The payloads of all records that wait, as copies: for rings that few records go through."""
        while read := self.read(_copied):
            yield from read[0]


def _copied(data: Any, enough: int) -> tuple[list[bytes], int]:
    payloads = []
    at, payload, length = ffi.new("uint64_t *"), ffi.new("uint8_t const **"), ffi.new("uint32_t *")
    memory = ffi.from_buffer(data)
    while at[0] < enough and lib.usdtkit_record_next(memory, len(data), at, payload, length) > 0:
        payloads.append(ffi.buffer(payload[0], length[0])[:])
    return payloads, int(at[0])
