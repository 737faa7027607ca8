"""What processes map from now on, and how the kernel's lists of mappings show an open file.

Input: the kernel's stream of mappings (native/mappings.h), and open descriptors of files. Output: `News` of files,
processes and mappings in the order of their time, and `usdtkit.maps.Identity`s. Used by `usdtkit.trace`, which attaches
to files that come later, and corrects semaphores in processes that map a file. `usdtkit.kernel.taskmaps` reads what
everybody has mapped already, and `usdtkit.scan` goes from a process to its files.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any

from usdtkit._ffi import check, ffi, lib
from usdtkit.maps import Identity, all_mappings, maps_of
from usdtkit.processes import online_cpus, threads_of
from usdtkit.records import NamedTuple

PAGE = mmap.PAGESIZE
# Room for the records of some 400 processes that start on one processor between two reads. A busy machine starts some
# hundred a second.
RING_PAGES = 64
# Each thread whose children wake us has an event and two pages on each processor.
MOST_WAKERS = 256

NEW_FILE, MAPPED, FORK, EXEC, EXIT, EVERY_MAPPING = (
    lib.USDTKIT_NEW_FILE,
    lib.USDTKIT_MAPPED,
    lib.USDTKIT_FORK,
    lib.USDTKIT_EXEC,
    lib.USDTKIT_EXIT,
    lib.USDTKIT_EVERY_MAPPING,
)
_NEWS = struct.Struct("=4I4Q2I2Q")


class News(NamedTuple):
    """One thing that has happened in the process `pid`, at `time_ns` (CLOCK_MONOTONIC).

    `kind` is the sum of some of these bits:

    - NEW_FILE: a file was mapped to execute that no process had mapped since the stream began
    - MAPPED: a file was mapped to execute that is watched, or by a process that is
    - FORK: it was started, by `parent`
    - EXEC: it began another program, which is called `name`
    - EXIT: it ended
    - EVERY_MAPPING: a file was mapped to execute; who keeps a model of processes asks for this

    Of a mapping, `start` to `end` are its addresses, `offset` is that of `start` in the file, `identity` and
    `generation` say which file it is, and `name` is the file's path as the process sees it. What does not belong to the
    kind is 0 or "".
    """

    kind: int
    pid: int
    parent: int
    time_ns: int
    start: int
    end: int
    offset: int
    identity: Identity
    generation: int
    name: str


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
    """What processes map to execute, start and end from now on, by perf's records.

    Nobody is woken for it: the caller reads with `take` when it likes, and `fileno` is readable when the room for
    records is half used. Needs CAP_PERFMON, without which it raises PrivilegeError.
    """

    def __init__(self, kinds: int = 0, *, wakes: bool = False) -> None:
        """`kinds`: the bits of the news that are wanted, besides MAPPED. `wakes`: `fileno` is readable after each
        record, which costs some microseconds for each mapping of any process."""
        cpus, stream = online_cpus(), ffi.new("usdtkit_mappings **")
        wakeup = 1 if wakes else RING_PAGES * PAGE // 2
        opened = lib.usdtkit_mappings_open(cpus, len(cpus), kinds, RING_PAGES, wakeup, stream)
        check(opened, "listening for what processes map")
        self._stream = stream[0]
        self.lost = 0
        """How many records did not fit since the call of `take` before the last one. The caller then has to look at
        all processes."""

    def fileno(self) -> int:
        """A descriptor that is readable when records should be read."""
        return int(lib.usdtkit_mappings_descriptor(self._stream))

    def watch(self, identity: Identity) -> None:
        """Tell each mapping of this file from now on."""
        check(lib.usdtkit_mappings_watch(self._stream, [(*identity, 0)]), "watching a file")

    def watch_process(self, pid: int) -> None:
        """Tell each mapping of this process from now on, as of a file that is watched."""
        check(lib.usdtkit_mappings_watch_process(self._stream, pid), "watching a process")

    def follow(self, pid: int) -> None:
        """Tell only of this process and of those that were given before; where FORK or EXIT are among the kinds, also
        of those that they start from now on."""
        check(lib.usdtkit_mappings_only(self._stream, pid), "following a process")

    def wake_for(self, pids: Sequence[int]) -> bool:
        """End a pause of `wait` as soon as one of these processes, or of those that they start from now on, starts or
        ends another. Returns False if they have so many threads that it is not done for all.

        It costs each of their switches of context some hundred nanoseconds. UsdtkitError.
        """
        cpus, known = online_cpus(), set[int]()
        while new := {tid for pid in pids for tid in threads_of(pid)} - known:  # a thread may have started another
            known |= new
            if len(known) * len(cpus) > MOST_WAKERS:
                return False
            for tid in new:
                check(lib.usdtkit_mappings_wake_for(self._stream, cpus, len(cpus), tid), "listening for processes")
        return True

    def know(self, identity: Identity, generation: int) -> None:
        """This file is not new."""
        check(lib.usdtkit_mappings_know(self._stream, [(*identity, generation)]), "remembering a file")

    def forget(self, news: News) -> None:
        """The file of this news is new again the next time that it is mapped."""
        lib.usdtkit_mappings_forget(self._stream, [(*news.identity, news.generation)])

    def take(self) -> list[News]:
        """What has happened since the last call, in the order of time."""
        data, lost = ffi.new("uint8_t **"), ffi.new("uint64_t *")
        size = check(lib.usdtkit_mappings_take(self._stream, data, lost), "reading what processes map")
        self.lost = lost[0]
        return self._news(data[0], size)

    def wait(self, stop: int, seconds: float, rounds: int) -> list[News] | None:
        """As `take`, but every `seconds` until there is something, `rounds` times at most; None as soon as the
        descriptor `stop` is readable. The rounds are made without Python."""
        data, lost = ffi.new("uint8_t **"), ffi.new("uint64_t *")
        size = lib.usdtkit_mappings_await(self._stream, stop, int(seconds * 1000), rounds, data, lost)
        if size == -errno.ECANCELED:
            return None
        self.lost = lost[0]
        return self._news(data[0], check(size, "reading what processes map"))

    def _news(self, data: Any, size: int) -> list[News]:
        news, at, all_news = ffi.buffer(data, size), 0, []
        while at < size:
            length, kind, pid, parent, time, start, end, offset, *file = _NEWS.unpack_from(news, at)
            name = os.fsdecode(news[at + _NEWS.size : at + length].partition(b"\0")[0])
            all_news.append(News(kind, pid, parent, time, start, end, offset, Identity(*file[:3]), file[3], name))
            at += length
        return all_news

    def close(self) -> None:
        """Stop listening; a second time does nothing."""
        if self._stream is not None:
            lib.usdtkit_mappings_close(self._stream)
            self._stream = None
