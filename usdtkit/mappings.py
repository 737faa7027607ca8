"""What processes have mapped of certain files: /proc/PID/maps read for those alone, and a stream of what they map next.

Input: open descriptors of files, numbers of processes. Output: mappings, as the kernel shows them. Used by
`usdtkit.trace`, which looks there for breakpoints and semaphores. `usdtkit.processes` finds all files of a process.
"""

# ruff: noqa: PTH123 thousands of files of /proc, where pathlib's cost shows

from __future__ import annotations

import errno
import mmap
import os
import select
import struct
from collections.abc import Collection, Iterator, Sequence

from usdtkit._ffi import check, ffi, lib
from usdtkit.records import NamedTuple, dataclass

PAGE = mmap.PAGESIZE
# Executable mappings of about 300 processes that start while nobody reads; a machine starts some hundred a second.
RING_PAGES = 32
_MMAP2 = 10
_HEADER = struct.Struct("=IHH")
_VALUE, _LOSSES = 8, struct.Struct("=QQ")  # what an event says of itself: its count, and its losses
# After a record's header: pid, tid, start, length, offset; then what makes an Identity.
_PLACE, _IDENTITY = struct.Struct("=IIQQQ"), struct.Struct("=IIQ")
_LONGEST = 8192  # bytes, more than a record with the longest path has


class Identity(NamedTuple):
    """A file as the kernel's lists of mappings show it. That is not always what stat(2) says: overlayfs and btrfs show
    another device there."""

    major: int
    minor: int
    inode: int

    @property
    def text(self) -> bytes:
        """As it stands in a line of maps, between the offset and the path."""
        return b" %02x:%02x %d " % self

    @property
    def packed(self) -> bytes:
        """As it stands in a record of perf."""
        return _IDENTITY.pack(*self)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of maps: `permissions` such as b"r-xp", `offset` in the file, and no inode where there is no file."""

    start: int
    end: int
    permissions: bytes
    offset: int
    identity: Identity

    def address(self, offset: int) -> int | None:
        """Where the byte of this file offset is in memory; None where this mapping does not have it."""
        return self.start + offset - self.offset if 0 <= offset - self.offset < self.end - self.start else None

    @property
    def is_executable(self) -> bool:
        """Whether code can run in it."""
        return self.permissions[2:3] == b"x"

    @property
    def is_writable(self) -> bool:
        """Whether the process can write to it."""
        return self.permissions[1:2] == b"w"


def identities(descriptors: Sequence[int]) -> list[Identity | None]:
    """How maps shows these open files; None for those that cannot be mapped, such as empty ones.

    Each is mapped here for a moment, because only the kernel knows what it shows.
    """
    places: list[tuple[mmap.mmap, int] | None] = []
    try:
        for descriptor in descriptors:
            try:
                # Shared, because a private mapping of a traced file gets breakpoints.
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
        own = {mapping.start: mapping.identity for mapping in map(_parse, maps.splitlines())}
        # Neighbours of one file and consecutive offsets are one mapping; these all begin at offset 0.
        return [None if place is None else own.get(place[1]) for place in places]
    finally:
        for place in places:
            if place is not None:
                place[0].close()


def maps_of(pid: int | str) -> bytes:
    """/proc/PID/maps, empty of a kernel thread and of a zombie. OSError where it has ended or may not be read."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        return file.read()


def mappings_in(maps: bytes, identity: Identity) -> list[Mapping]:
    """The lines of `maps` that map this file, in the order of their addresses."""
    found, text = [], identity.text
    at = maps.find(text)
    while at >= 0:
        mapping = _parse(maps[maps.rfind(b"\n", 0, at) + 1 : at + len(text)])
        if mapping.identity == identity:  # and not a path that looks like one
            found.append(mapping)
        at = maps.find(text, at + len(text))
    return found


def mapping_at(maps: bytes, address: int) -> Mapping | None:
    """The line of `maps` with this address."""
    mappings = map(_parse, maps.splitlines())
    return next((mapping for mapping in mappings if mapping.start <= address < mapping.end), None)


def _parse(line: bytes) -> Mapping:
    span, permissions, offset, device, inode = line.split(None, 5)[:5]
    start, end = span.split(b"-")
    major, minor = device.split(b":")
    identity = Identity(int(major, 16), int(minor, 16), int(inode))
    return Mapping(int(start, 16), int(end, 16), permissions, int(offset, 16), identity)


class MappingStream:
    """Every executable mapping of a file that any process makes from now on, by perf's records of them.

    Needs CAP_PERFMON: PrivilegeError. It costs nothing but the reading; `fileno` is readable when there is some to do.
    """

    def __init__(self) -> None:
        self._events: list[int] = []
        self._rings: list[mmap.mmap] = []
        self._poller = select.epoll()
        self._room = bytearray(RING_PAGES * PAGE)
        self._lost: dict[int, bytes] = {}  # what each event said of its losses when it was last read
        self.lost = False
        try:
            for cpu in _online_cpus():
                event = lib.usdtkit_perf_mappings(cpu)
                if event == -errno.ENODEV:  # taken offline meanwhile
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

    def take(self, wanted: Collection[Identity]) -> Iterator[tuple[int, Identity]]:
        """Processes that have mapped one of the wanted files since the last time, each time that they did.

        `lost` is true afterwards where some records did not fit: then look at all processes.
        """
        self.lost = False
        needles = [identity.packed for identity in wanted]
        for event, ring in zip(self._events, self._rings, strict=True):
            with ffi.from_buffer(ring) as start, ffi.from_buffer(self._room) as room:
                size = lib.usdtkit_perf_take(start, len(self._room), room)
            if size + _LONGEST > len(self._room):  # else all that came has had room
                # A record of the loss comes only with the next one that fits, which may be never.
                losses = os.read(event, _LOSSES.size)[_VALUE:]
                self.lost |= losses != self._lost.get(event, bytes(len(losses)))
                self._lost[event] = losses
            data = bytes(self._room[:size])
            if any(needle in data for needle in needles):  # which is seldom, and records are many
                yield from (mapped for mapped in self._records(data) if mapped[1] in wanted)

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


def _online_cpus() -> Iterator[int]:
    with open("/sys/devices/system/cpu/online") as file:
        for part in file.read().strip().split(","):
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)
