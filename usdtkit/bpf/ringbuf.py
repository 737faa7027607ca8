"""A BPF ring buffer drained in C: many records a call, in the order in which they were reserved.

Input: the `Map` of the ring. Output: chunks of records for `trace.events` to decode. What did not fit is counted by the
program in the kernel, see `program`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from usdtkit._ffi import check, ffi, lib
from usdtkit.bpf.maps import Map

CHUNK = 1 << 18
_HEADER = 8


class RingBuffer:
    """The reading side of one ring buffer. `fd` is readable (poll) when records wait.

    `chunk` holds what `refill` took: each record as its length (4 bytes), 4 bytes of nothing, and its payload with a
    multiple of 8 bytes.
    """

    def __init__(self, ring: Map) -> None:
        handle = ffi.new("usdtkit_ring **")
        check(lib.usdtkit_ring_open(ring.fd, ring.max_entries, handle), "mapping the BPF ring buffer")
        self._ring = ffi.gc(handle[0], lib.usdtkit_ring_close)
        self.chunk = bytearray(CHUNK)
        self.fd = ring.fd

    def close(self) -> None:
        if self._ring is not None:
            ffi.release(self._ring)
            self._ring = None

    @property
    def reserved(self) -> int:
        """Bytes that programs have reserved, ever, written or not."""
        return int(lib.usdtkit_ring_reserved(self._ring))

    @property
    def taken(self) -> int:
        """Bytes that `refill` has taken, ever."""
        return int(lib.usdtkit_ring_taken(self._ring))

    def payloads(self) -> Iterator[memoryview]:
        """Those of all records that wait, each valid until the next: for rings whose records are few."""
        view = memoryview(self.chunk)
        while end := self.refill():
            at = 0
            while at < end:
                length = int.from_bytes(view[at : at + 4], "little")
                yield view[at + _HEADER : at + _HEADER + length]
                at += _HEADER + (length + 7) // 8 * 8

    def refill(self) -> int:
        """Take whole records out of the ring, at most a chunk full; how many bytes of `chunk` they are."""
        if self._ring is None:
            return 0
        written = int(lib.usdtkit_ring_drain(self._ring, ffi.from_buffer(self.chunk), len(self.chunk)))
        if written == -errno.ENOSPC:
            raise AssertionError("a record is larger than the chunk: `program` limits them")
        return written
