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
        self._room = bytearray(CHUNK)
        self.fd = ring.fd

    def close(self) -> None:
        if self._ring is not None:
            ffi.release(self._ring)
            self._ring = None

    def drain(self) -> Iterator[memoryview]:
        """Payloads of the records that wait now, at most about 1 MiB of them; each valid until the next call."""
        written = lib.usdtkit_ring_drain(self._ring, ffi.from_buffer(self._room), len(self._room))
        if written == -errno.ENOSPC:
            raise AssertionError("a record is larger than the chunk: `program` limits them")
        view = memoryview(self._room)
        at = 0
        while at < written:
            length = int.from_bytes(view[at : at + 4], "little")
            start = at + RECORD_HEADER
            yield view[start : start + length]
            at = start + (length + 7) // 8 * 8
