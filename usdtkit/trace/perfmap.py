"""A perf map, the file in which a just-in-time compiler lists what it has compiled → names of addresses.

Input: /tmp/perf-PID.map as the process sees it, which CPython's -X perf, Node's --perf-basic-prof and agents of Java
write, and the perf maps of the processes that it was forked from. Output: names for `trace.memory`.

Everybody can write to /tmp. So a perf map is only trusted if it is a regular file that belongs to the user of the
process or to root, and no symbolic link leads to it. A perf map that has grown is read again.
"""

# ruff: noqa: PTH123  importing pathlib takes long

from __future__ import annotations

import os
import stat
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterator

LARGEST = 64 << 20
MOST_ENTRIES = 1 << 20
LONGEST_NAME = 4096
_CHUNK = 1 << 20
_MOST_FORKS = 8
_START_STACK = 25
"""The field of /proc/PID/stat, counted after the name, with the address where the stack begins: exec changes it, fork
does not."""
_OVERLAPPING = 16
"""How many entries before the nearest one are looked at, because compilers free code and use its addresses again."""


class PerfMaps:
    """The perf maps for one process: its own, and those of the processes that it was forked from.

    A forked worker has the code that its parent had compiled, which only the parent's map names.
    """

    def __init__(self, pid: int) -> None:
        """Open those that exist and can be trusted."""
        self._pid = pid
        self._own = PerfMap.of(pid)
        self._inherited = [perf_map for parent in _forked_from(pid) if (perf_map := PerfMap.of(parent)) is not None]

    def __iter__(self) -> Iterator[PerfMap]:
        """The maps, beginning with that of the process itself."""
        if self._own is None:  # the process may have begun one since
            self._own = PerfMap.of(self._pid)
        if self._own is not None:
            yield self._own
        yield from self._inherited

    def find(self, address: int) -> tuple[str, int] | None:
        """(name, offset) of the code at an address."""
        return next((name for perf_map in self if (name := perf_map.find(address)) is not None), None)


class PerfMap:
    """An open perf map. It keeps 32 bytes for each entry, and reads names from the file when they are asked for."""

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`, which is open for reading."""
        self._descriptor = descriptor
        self._finalizer = weakref.finalize(self, os.close, descriptor)
        self._forget()

    @classmethod
    def of(cls, pid: int) -> PerfMap | None:
        """The perf map of a process, in its container if it has one. None where there is none that can be trusted."""
        try:
            with open(f"/proc/{pid}/status", "rb") as file:
                fields = {name: value.split() for name, _, value in (line.partition(b":") for line in file)}
            owner, inner = int(fields[b"Uid"][1]), fields[b"NSpid"][-1].decode()
        except (OSError, LookupError):
            return None
        descriptor = _open_below(f"/proc/{pid}/root", "tmp", f"perf-{inner}.map")
        if descriptor is None:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (owner, 0):
            os.close(descriptor)
            return None
        return cls(descriptor)

    def find(self, address: int) -> tuple[str, int] | None:
        """(name, offset) of the code at an address: the last that was compiled to that place."""
        self._refresh()
        nearest = bisect_right(self._starts, address) - 1
        entries = [self._order[at] for at in range(nearest, max(-1, nearest - _OVERLAPPING), -1)]
        holding = [at for at in entries if address - self._first[at] < self._sizes[at]]
        if not holding:
            return None
        at = max(holding)
        name = os.pread(self._descriptor, LONGEST_NAME, self._names[at]).partition(b"\n")[0]
        return name.decode("utf-8", "surrogateescape"), address - self._first[at]

    def _forget(self) -> None:
        self._read = 0
        self._first, self._sizes, self._names = array("Q"), array("Q"), array("Q")  # in the order of the file
        self._starts, self._order = array("Q"), array("Q")  # sorted

    def _refresh(self) -> None:
        size = min(os.fstat(self._descriptor).st_size, LARGEST)
        if size < self._read:
            self._forget()
        before = self._read
        while self._read < size and len(self._first) < MOST_ENTRIES:
            chunk = os.pread(self._descriptor, min(_CHUNK, size - self._read), self._read)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            if not whole:  # a line that is not complete yet, or that never ends
                break
            self._parse(whole)
            self._read += len(whole)
        if self._read != before:
            self._order = array("Q", sorted(range(len(self._first)), key=self._first.__getitem__))
            self._starts = array("Q", [self._first[at] for at in self._order])

    def _parse(self, lines: bytes) -> None:
        """Add the entries "START SIZE NAME", with numbers in hexadecimal; skip all other lines."""
        at = self._read
        for line in lines.splitlines(keepends=True):
            fields = line.split(b" ", 2)
            if len(fields) == 3 and len(fields[0]) <= 18 and len(fields[1]) <= 18:
                try:
                    start, size = int(fields[0], 16), int(fields[1], 16)
                except ValueError:
                    start = size = 0
                if 0 < start < 2**64 and 0 < size < 2**64:
                    self._first.append(start)
                    self._sizes.append(size)
                    self._names.append(at + len(line) - len(fields[2]))
            at += len(line)


def _forked_from(pid: int) -> Iterator[int]:
    """The parents of a process that run the same program, the nearest first."""
    parent, began = _stat(pid)
    for _ in range(_MOST_FORKS):
        before, parents_began = _stat(parent)
        if not began or parents_began != began:
            return
        yield parent
        parent = before


def _stat(pid: int) -> tuple[int, int]:
    """The parent of a process, and the address where its stack begins. Zeros where that cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[_START_STACK])


def _open_below(root: str, *path: str) -> int | None:
    """Open the file at `path` below a directory without following symbolic links. None where that fails."""
    opened = -1
    try:
        opened = os.open(root, os.O_PATH | os.O_DIRECTORY)
        for at, name in enumerate(path, 1):
            last = os.O_RDONLY | os.O_NONBLOCK if at == len(path) else os.O_PATH | os.O_DIRECTORY
            above, opened = opened, os.open(name, last | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)
            os.close(above)
    except OSError:
        if opened >= 0:
            os.close(opened)
        return None
    return opened
