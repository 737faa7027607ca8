"""A BPF ring buffer drained in C: many records a call, as memory views, in the order in which they were reserved.

Input: the `Map` of the ring. Output: payloads for `trace.events` to decode. What did not fit is counted by the
program in the kernel, see `program`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from usdtkit._ffi import check, ffi, lib
from usdtkit.bpf.maps import Map

CHUNK = 1 << 20
RECORD_HEADER = 8


class RingBuffer:
    """The reading side of one ring buffer. `fd` is readable (poll) when records wait."""

    def __init__(self, ring: Map) -> None:
        handle = ffi.new("usdtkit_ring **")
        check(lib.usdtkit_ring_open(ring.fd, ring.max_entries, handle), "mapping the BPF ring buffer")
        self._ring = ffi.gc(handle[0], lib.usdtkit_ring_close)
        self._size = ring.max_entries
        self._room = bytearray(CHUNK)
        # What was drained and not yet yielded, for a reader that stops in the midst of it and comes back.
        self._at = self._end = 0
        self.fd = ring.fd

    def close(self) -> None:
        if self._ring is not None:
            ffi.release(self._ring)
            self._ring = None
            self._at = self._end = 0

    def drain(self) -> Iterator[memoryview]:
        """Payloads of the records that wait now, each valid until the next; a fast writer does not make it endless."""
        left = self._size + self._end - self._at
        view = memoryview(self._room)
        while self._ring is not None and left > 0 and (self._at < self._end or self._refill()):
            start = self._at + RECORD_HEADER
            length = int.from_bytes(view[self._at : self._at + 4], "little")
            step = RECORD_HEADER + (length + 7) // 8 * 8
            self._at += step
            left -= step
            yield view[start : start + length]

    def _refill(self) -> bool:
        written = lib.usdtkit_ring_drain(self._ring, ffi.from_buffer(self._room), len(self._room))
        if written == -errno.ENOSPC:
            raise AssertionError("a record is larger than the chunk: `program` limits them")
        self._at, self._end = 0, written
        return bool(written)
