"""How the kernel's lists of mappings show an open file, and a stream of the processes that map it from now on.

Input: open descriptors of files. Output: `usdtkit.maps.Identity`s. Used by `usdtkit.trace`, which looks for breakpoints
and semaphores in the processes that map a file. `usdtkit.scan` goes the other way, from a process to its files.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import struct
from collections.abc import Collection, Iterator, Sequence

from usdtkit._ffi import check, ffi, lib
from usdtkit.maps import Identity, all_mappings, maps_of
from usdtkit.processes import online_cpus

PAGE = mmap.PAGESIZE
# Room for the executable mappings of about 300 processes that start between two reads. A busy machine starts some
# hundred a second.
RING_PAGES = 32
_MMAP2 = 10
_HEADER = struct.Struct("=IHH")
_VALUE, _LOSSES = 8, struct.Struct("=QQ")  # of a read of the event itself, which gives its count and its losses
# After a record's header: pid, tid, start, length, offset; then what makes an Identity.
_PLACE, _IDENTITY = struct.Struct("=IIQQQ"), struct.Struct("=IIQ")
_LONGEST = 8192  # bytes, more than a record with the longest path has


def identities(descriptors: Sequence[int]) -> list[Identity | None]:
    """Return how maps shows these open files; None for files that cannot be mapped, such as empty ones.

    Each file is mapped into this process for a moment, because only the kernel knows how it shows them.
    """
    places: list[tuple[mmap.mmap, int] | None] = []
    try:
        for descriptor in descriptors:
            try:
                # The mapping is shared, because the kernel puts breakpoints into private mappings of a traced file.
                view = mmap.mmap(descriptor, min(os.fstat(descriptor).st_size, PAGE), mmap.MAP_SHARED, mmap.PROT_READ)
            except (OSError, ValueError):
                places.append(None)
                continue
            with ffi.from_buffer(view) as start:
                places.append((view, int(ffi.cast("uintptr_t", start))))
        try:
            maps = maps_of("self")
        except OSError:  # there is no /proc
            maps = b""
        identity_at = {mapping.start: mapping.identity for mapping in all_mappings(maps)}
        # The kernel joins neighbours of one file whose offsets follow each other. These all begin at offset 0.
        return [None if place is None else identity_at.get(place[1]) for place in places]
    finally:
        for place in places:
            if place is not None:
                place[0].close()


class MappingStream:
    """Yields which processes map a file executable from now on, by perf's records of mappings.

    Needs CAP_PERFMON, without which it raises PrivilegeError. `fileno` is readable when there are records.
    """

    def __init__(self) -> None:
        self._events: list[int] = []
        self._rings: list[mmap.mmap] = []
        self._poller = select.epoll()
        self._buffer = bytearray(RING_PAGES * PAGE)
        self._lost: dict[int, bytes] = {}  # the losses of each event when they were last read
        self.lost = False
        try:
            for cpu in online_cpus():
                event = lib.usdtkit_perf_mappings(cpu)
                if event == -errno.ENODEV:  # the processor was taken offline meanwhile
                    continue
                self._events.append(check(event, "listening for what processes map"))
                self._rings.append(mmap.mmap(event, (1 + RING_PAGES) * PAGE))
                self._poller.register(event, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """A descriptor that is readable when there are records."""
        return self._poller.fileno()

    def take(self, identities: Collection[Identity]) -> Iterator[tuple[int, Identity]]:
        """Yield the processes that have mapped one of the wanted files since the last call, once for each mapping.

        `lost` is true afterwards where some records did not fit into the ring. The caller then has to look at all
        processes.
        """
        self.lost = False
        needles = [_IDENTITY.pack(*identity) for identity in identities]
        for event, ring in zip(self._events, self._rings, strict=True):
            with ffi.from_buffer(ring) as start, ffi.from_buffer(self._buffer) as buffer:
                size = lib.usdtkit_perf_take(start, len(self._buffer), buffer)
            if size + _LONGEST > len(self._buffer):  # else everything has fitted into the ring
                # The kernel writes a record of the loss together with the next record that fits, which may never come.
                losses = os.read(event, _LOSSES.size)[_VALUE:]
                self.lost |= losses != self._lost.get(event, bytes(len(losses)))
                self._lost[event] = losses
            data = bytes(self._buffer[:size])
            if any(needle in data for needle in needles):  # there are many records, and few are of wanted files
                yield from (mapped for mapped in self._records(data) if mapped[1] in identities)

    def _records(self, data: bytes) -> Iterator[tuple[int, Identity]]:
        at = 0
        while at < len(data):
            kind, _, size = _HEADER.unpack_from(data, at)
            if kind == _MMAP2:
                place = at + _HEADER.size
                pid = _PLACE.unpack_from(data, place)[0]
                yield pid, Identity(*_IDENTITY.unpack_from(data, place + _PLACE.size))
            at += size

    def close(self) -> None:
        """Stop listening."""
        for ring in self._rings:
            ring.close()
        for event in self._events:
            os.close(event)
        self._rings, self._events = [], []
        self._poller.close()
