"""A running process → what the walker in the kernel knows of it: where its code lies, and by which tables it is walked.

Input: a process, by /proc/PID/maps and the files that it names; places of tables from `usdtkit.unwind.store`, and where
Python is, if another module says so. Output: bytes of one `struct unwind_process`, which are given to `write` under the
number of the process, and what could not be had, for messages. An entry is what the process had mapped at one moment.
Who sees a stack that leads to another address asks again.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from usdtkit.errors import NotFoundError, UsdtkitError
from usdtkit.mappedfiles import VDSO, inspecting, open_mapping, open_vdso
from usdtkit.maps import Mapping, executable_mappings, maps_of
from usdtkit.processes import runs
from usdtkit.records import NamedTuple
from usdtkit.unwind.store import Place, Store
from usdtkit.unwind.tables import LoadRange

MOST_MAPPINGS = 256
LONGEST_LOOK_S = 5
"""A process can map many thousand files that take long to read. What was read is known at the next look."""

NO_MAPPING = (1 << 63) - 1
"""Where entries start that are not used. What the kernel has mapped above is not the process's."""

NO_FILE = 1
"""The page of a mapping without pages that is of no file. No thread begins there, so no walk comes to its end there."""

HEAD = struct.Struct("<IIQI4x")  # how many mappings, Python's layout, its runtime, the process
MAPPING = struct.Struct("<QQQII")  # start, bias, size, first page, how many pages
SIZE = HEAD.size + MOST_MAPPINGS * MAPPING.size
_UNUSED = MAPPING.pack(NO_MAPPING, 0, 0, 0, 0)
ANY_CODE = HEAD.pack(1, 0, 0, 0) + MAPPING.pack(0, 0, NO_MAPPING, 0, 0) + _UNUSED * (MOST_MAPPINGS - 1)
"""The entry of processes that are not known: all memory may be code, and none of it has tables."""


class Learned(NamedTuple):
    """What became of a process's executable mappings: how many the walker knows, and how many are too many.

    `untabled` has a (name, reason) for each file without a table, in whose code the walk follows frame pointers.
    `compiled` has the (start, end) of executable memory without a file, where the walk does that too.
    """

    mappings: int
    left_out: int
    untabled: tuple[tuple[str, str], ...]
    compiled: tuple[tuple[int, int], ...]


def no_python(pid: int) -> tuple[int, int]:
    """Say of a process that there is no Python in it: the number of the layout, and the address of its runtime."""
    return 0, 0


class Processes:
    """The processes that the walker knows."""

    def __init__(
        self,
        store: Store,
        write: Callable[[int, bytes], None],
        remove: Callable[[int], None],
        python: Callable[[int], tuple[int, int]] = no_python,
    ) -> None:
        """`write` sets the entry of a process in the kernel's map, `remove` deletes it if it is there. When a process
        ends, a program in the kernel deletes it."""
        self._store = store
        self._write = write
        self._remove = remove
        self._python = python
        self._vdso: Place | None = None

    def learn(self, pid: int) -> Learned:
        """Look at what a process has mapped now, and tell the kernel.

        NotFoundError if the process has ended, PrivilegeError if it may not be inspected, and what `write` raises.
        """
        with inspecting(pid):
            mappings = [mapping for mapping in executable_mappings(maps_of(pid)) if mapping.start < NO_MAPPING]
        if not mappings:  # /proc shows none of a process whose first thread has ended: what is known of it stays
            raise NotFoundError(f"process {pid} has ended, or its first thread has")
        until = time.monotonic() + LONGEST_LOOK_S
        places = {mapping: self._place(pid, mapping, until) for mapping in mappings}
        # Those with a table are kept first, and then the largest.
        entries = [_Entry.of(mapping, place) for mapping, place in places.items()]
        kept = sorted(sorted(entries, key=lambda entry: (not entry.pages, -entry.size))[:MOST_MAPPINGS])
        head = HEAD.pack(len(kept), *self._python(pid), pid)
        unused = _UNUSED * (MOST_MAPPINGS - len(kept))
        self._write(pid, head + b"".join(MAPPING.pack(*entry) for entry in kept) + unused)
        if _has_ended(pid):  # meanwhile, and nobody else would remove the entry
            self._remove(pid)
        untabled = {mapping.name: place.why for mapping, place in places.items() if place.why}
        no_files = (mapping for mapping in mappings if not mapping.identity.inode and mapping.name != VDSO)
        compiled = tuple((mapping.start, mapping.end) for mapping in no_files)
        return Learned(len(kept), len(mappings) - len(kept), tuple(untabled.items()), compiled)

    def _place(self, pid: int, mapping: Mapping, until: float) -> Place:
        if mapping.identity.inode:
            if time.monotonic() > until:
                return Place(0, 0, why=f"{mapping.name}: there was no time to read it")
            try:
                file = open_mapping(pid, mapping)
            except UsdtkitError as error:
                return Place(0, 0, why=error.message)
            return self._store.place(file, mapping.name)
        # A 32-bit process has another one.
        if mapping.name == VDSO and mapping.start >> 32:
            return self._place_of_vdso()
        return Place(NO_FILE, 0)

    def _place_of_vdso(self) -> Place:
        if self._vdso is None:
            file = open_vdso()
            self._vdso = Place(0, 0) if file is None else self._store.place(file, VDSO)
        return self._vdso


def _has_ended(pid: int) -> bool:
    """Whether all threads of a process have."""
    with suppress(OSError):
        return not any(runs(int(thread)) for thread in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    return True


class _Entry(NamedTuple):
    """What the kernel has of one mapping. Without pages, it has no table."""

    start: int
    bias: int
    size: int
    page: int
    pages: int

    @classmethod
    def of(cls, mapping: Mapping, place: Place) -> _Entry:
        size = mapping.end - mapping.start

        def overlap(code: LoadRange) -> int:
            return min(mapping.offset + size, code.offset + code.size) - max(mapping.offset, code.offset)

        code = max(place.ranges, key=overlap, default=None)
        if not place.pages or code is None or overlap(code) <= 0:  # it has no code of the file, or no table
            return cls(mapping.start, 0, size, 0 if place.pages else place.page, 0)
        inside = code.address + mapping.offset - code.offset
        return cls(mapping.start, (mapping.start - inside) % (1 << 64), size, place.page, place.pages)
