"""What the walk along stacks needs to know of processes and their files → the maps of unwind.c, for one session.

Input: the maps, and processes. Output: entries of the maps, from `usdtkit.unwind`, which has no kernel to write to.
A process is looked at before its first hit if the session is about it, and else when the first of its stacks comes that
ends in code that is not known. Used by `running` and `stacks`.
"""

from __future__ import annotations

import _thread  # threading takes long to import
import mmap
import os
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from usdtkit._ffi import check
from usdtkit.bpf.bytecode import MapDescription
from usdtkit.bpf.uapi import NO_PREALLOC
from usdtkit.bpf.walker import HASHES, INDEX, INSTANCES, PROCESSES, ROWS
from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.features import has_uprobe_multi
from usdtkit.kernel.maps import Map, mapped, new_value
from usdtkit.kernel.taskmaps import RETURN_INSTANCES, places_of
from usdtkit.trace.pythonframes import KnownPythons, PythonFrames
from usdtkit.unwind.mapped import ANY_CODE, Processes
from usdtkit.unwind.store import CHUNK_BYTES, Store

MOST_FAILURES = 8
"""How often a process is looked at in vain, because its stacks lead to memory that is no code."""
MOST_FRESH = 1024

FEWER = 4
"""The part of the entries that there are on kernels that allocate all entries of a map when it is made."""


def sizes_of(maps: Iterable[MapDescription], megabytes: int) -> dict[str, int]:
    """The sizes of those maps that the walk needs, if its tables take no more than so many megabytes."""
    sizes = {ROWS: (megabytes << 20) // CHUNK_BYTES}
    for map in maps:
        if map.name in HASHES:
            is_large = map.flags & NO_PREALLOC and not has_uprobe_multi()
            sizes[map.name] = map.max_entries // (FEWER if is_large else 1)
    return sizes


class Unwinder:
    """Fills the maps of one session. Several threads may use it."""

    def __init__(self, maps: Mapping[str, Map], megabytes: int, remark: Callable[[str], object]) -> None:
        """Write what all processes have in common. `megabytes` bounds the tables, and `remark` is told when they are
        full."""
        self._megabytes = megabytes
        self._remark: Callable[[str], object] | None = remark
        self._tables = _Tables(maps)
        self._store = Store(self._tables, megabytes)
        entries = maps[PROCESSES]
        entries[bytes(4)] = ANY_CODE

        def write(pid: int, entry: bytes) -> None:
            self._tables.publish()
            entries[pid.to_bytes(4, "little")] = entry

        def remove(pid: int) -> None:
            del entries[pid.to_bytes(4, "little")]

        self.pythons = KnownPythons(maps)
        self.python_frames = PythonFrames(maps)
        self._processes = Processes(self._store, write, remove, self.pythons.python)
        self._in_vain: dict[int, int] = {}
        self._compiled: OrderedDict[int, tuple[tuple[int, int], ...]] = OrderedDict()
        self._lock = _thread.allocate_lock()
        self.fresh: deque[int] = deque(maxlen=MOST_FRESH)
        """Processes that were looked at lately: their later mappings matter."""
        with suppress(UnsupportedError):  # then the addresses that return probes replace stay unknown
            places = places_of(RETURN_INSTANCES)
            maps[INSTANCES][bytes(4)] = struct.pack("<5Q", *(places[name] for name in RETURN_INSTANCES))

    def learn(self, pid: int) -> bool:
        """Look at what a process has mapped now; whether that could be done."""
        with self._lock:
            if self._tables.closed:
                return False
            try:
                self._compiled[pid] = self._processes.learn(pid).compiled
                self._compiled.move_to_end(pid)
                if len(self._compiled) > MOST_FRESH:
                    self._compiled.popitem(last=False)
                self._tell_if_full()
            except (OSError, UsdtkitError):
                # It has ended, or may not be inspected; or the map is full, or descriptors or memory run short. Its
                # stacks are cut.
                with suppress(OSError, UsdtkitError):
                    self._tables.publish()
                return False
        self.fresh.append(pid)
        return True

    def prepare(self, path: str) -> None:
        """Make the table of a file now, because it cannot be made later."""
        with self._lock, suppress(UsdtkitError):
            self._store.place(OpenFile.open(path), path)
            self._tables.publish()

    @property
    def left_out(self) -> int:
        """How many files have no table because there was no room for it."""
        return self._store.refused

    def _tell_if_full(self) -> None:
        if self._store.refused and self._remark is not None:
            self._remark(
                f"stacks are followed by frame pointers in {', '.join(self._store.full)}, and in files that come "
                f"later: the tables of call frames take {self._megabytes} MB, and --unwind-memory allows more"
            )
            self._remark = None

    def learn_again(self, pid: int) -> None:
        """The same because of a stack that leads to unknown code, unless that was done often enough."""
        tries = self._in_vain[pid] = self._in_vain.get(pid, 0) + 1
        if tries <= MOST_FAILURES:
            self.learn(pid)

    def are_compiled(self, pid: int, addresses: Sequence[int]) -> bool:
        """Whether all these addresses, of which the kernel knew nothing, are in memory without a file: then it was
        right to follow frame pointers there."""
        ranges = self._compiled.get(pid, ())
        return all(any(start <= address < end for start, end in ranges) for address in addresses)

    def close(self) -> None:
        """Free the ring buffer and the tables. Names stay."""
        with self._lock:
            self._tables.close()
        self.python_frames.close()

    def was_right(self, pid: int) -> None:
        """A stack of a process leads to its end: what is known of it holds."""
        self._in_vain.pop(pid, None)


class _Tables:
    """The maps of rows and of pages, as `usdtkit.unwind.store` writes to them."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._rows = maps[ROWS]
        self._index = maps[INDEX].memory()
        self._chunks: dict[int, mmap.mmap] = {}  # only the last one is written to
        self._unpublished: dict[int, int] = {}  # descriptors of chunks, by their numbers

    def new_chunk(self, number: int, rows: bytes) -> None:
        """Make a chunk. Programs see it once it is published."""
        descriptor = check(new_value(CHUNK_BYTES, ROWS), "making room for tables of call frame information")
        self._unpublished[number] = descriptor
        memory = mapped(descriptor, CHUNK_BYTES)
        memory[: len(rows)] = rows
        self._chunks = {number: memory}

    def publish(self) -> None:
        """Let programs find all chunks. Entries of processes that need them come after it.

        Programs can find them long before the call returns, which then waits for those that run. So that is left to
        another thread.
        """
        chunks, self._unpublished = self._unpublished, {}
        if not chunks:
            return
        entries = {n.to_bytes(4, "little"): fd.to_bytes(4, "little") for n, fd in chunks.items()}
        over, errors = _thread.allocate_lock(), []

        def write() -> None:
            try:
                self._rows.update(entries)
            except UsdtkitError as error:
                errors.append(error)
            over.release()

        over.acquire()
        _thread.start_new_thread(write, ())
        last = [*entries][-1]
        while over.locked() and last not in self._rows:
            time.sleep(0)
        for descriptor in chunks.values():
            os.close(descriptor)
        if errors:
            raise errors[0]

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._index.closed

    def close(self) -> None:
        """Free the memory, by which the kernel would keep the maps."""
        self._index.close()
        for memory in self._chunks.values():
            memory.close()

    def update_chunk(self, number: int, offset: int, rows: bytes) -> None:
        """Write rows into the last chunk."""
        self._chunks[number][offset : offset + len(rows)] = rows

    def write_index(self, first_page: int, pages: bytes) -> None:
        """Write entries of pages."""
        self._index[first_page * 8 : first_page * 8 + len(pages)] = pages
