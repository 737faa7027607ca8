"""The executable mappings of a process at one moment → frames for the addresses of its stacks.

Input: /proc/PID/maps, the files that it names, which `trace.symbols` holds open, and the process's perf maps. Output:
`Frame`s for `trace.stacks`. An `AddressSpace` that was read while the process ran still answers after its end. If the
process had already ended, `Remains` makes the frames from what the kernel noted when it took the stack.
"""

# ruff: noqa: PTH116  asked for every new stack, where pathlib would take a large part of the time

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from usdtkit.mappedfiles import VDSO
from usdtkit.maps import Mapping, executable_mappings, maps_of
from usdtkit.model import PythonCaller
from usdtkit.trace.perfmap import PerfMaps
from usdtkit.trace.symbols import Files, MappedFile

PAGE = 4096
NATIVE, JIT, PYTHON, PHP, RUBY = "native", "jit", "python", "php", "ruby"
"""The kinds of frames."""
LANGUAGES = frozenset({PYTHON, PHP, RUBY})
"""The kinds of those whose interpreter is walked."""


class Frame(NamedTuple):
    """One call of a stack. Texts that are not known are "", numbers None.

    - `kind`: "native" for machine code of a file, "jit" for code that was compiled at run time and that a perf map
      names, "python", "php" or "ruby" for one of that language; where a runtime told of its calls, the language's name
    - `name`: the function, as the file has it; qualified in Python (`Shop.order`)
    - `offset`: how many bytes into the function the call, or the hit, is. Without a name it is the virtual address in
      `module`, or the place in the file that has a build-id, or else the address in the process. None in languages
    - `module`: the path of the file with the machine code, or the kernel's name of the mapping ("[vdso]")
    - `file`, `line`: the place in the source, of functions of Python, PHP, Ruby and Go
    - `build_id`: of the file with the machine code, in hexadecimal
    - `address`: where the call, or the hit, is in the process; 0 in languages
    """

    kind: str
    name: str = ""
    offset: int | None = None
    module: str = ""
    file: str = ""
    line: int | None = None
    build_id: str = ""
    address: int = 0

    @property
    def label(self) -> str:
        """The name, in languages with the source; without a name, module+offset; without a module, the address."""
        if self.kind in LANGUAGES:
            return str(PythonCaller(self.name, self.file, self.line))
        if self.name:
            return self.name
        module = self.module.rpartition("/")[2] or (f"[build-id {self.build_id}]" if self.build_id else "")
        return f"{module}+{self.offset:#x}" if module and self.offset is not None else f"{self.address:#x}"

    @property
    def source(self) -> str:
        """The place in the source without its directories, such as `shop.py:41`; "" where it is not known."""
        return PythonCaller(self.name, self.file, self.line).source


class Region(NamedTuple):
    """One executable mapping. `offset` is the offset in the file of its first byte."""

    start: int
    end: int
    offset: int
    name: str
    file: MappedFile | None


class AddressSpace:
    """The executable mappings of one process, as they were when it was looked at."""

    def __init__(self, pid: int, regions: Sequence[Region], program: tuple[int, int], files: Files) -> None:
        self.pid = pid
        self.program = program
        self._regions = sorted(regions)
        self._starts = [region.start for region in self._regions]
        self._files = files
        self._perf_maps = PerfMaps(pid)

    @classmethod
    def of(cls, pid: int, files: Files) -> AddressSpace | None:
        """The address space of a running process; None where it has ended, or may not be inspected."""
        try:
            program = _program(pid)
            maps = maps_of(pid)
        except OSError:
            return None
        regions = [
            _region(pid, mapping, files)
            for mapping in executable_mappings(maps)
            if mapping.start < 1 << 63  # [vsyscall] lies above, and is the kernel's
        ]
        return cls(pid, regions, program, files) if regions else None

    @property
    def files(self) -> list[MappedFile]:
        """Those of the mapped files that could be opened."""
        return list(dict.fromkeys(region.file for region in self._regions if region.file is not None))

    def still_holds(self, addresses: Sequence[int]) -> bool:
        """Whether the process still has the same mappings, as far as these addresses can tell."""
        try:
            same = _program(self.pid) == self.program
        except OSError:
            return True  # it has ended: there is nothing newer
        return same and self._region(addresses[0]) is not None and self.real(addresses) == addresses

    def real(self, addresses: Sequence[int]) -> Sequence[int]:
        """The addresses up to the first that is not in executable memory.

        A chain of frames leads to such an address when a function without a frame pointer has used the register of the
        frame pointer for something else.
        """
        if self._region(addresses[0]) is None:
            return addresses  # mapped since this was read
        return addresses[: next((n for n, at in enumerate(addresses) if self._region(at) is None), None)]

    def frame(self, address: int, at: int) -> Frame:
        """The frame of `address`. `at` is in the instruction that names it: of a return address, the call before it."""
        region = self._region(at) or self._region(address)  # a trampoline begins its mapping
        if region is None:
            return Frame(NATIVE, offset=address, address=address)
        shift = address - at
        file = self._files.vdso() if region.name == VDSO else region.file
        if file is not None:
            file_offset = at - region.start + region.offset
            if file.table() is not None:
                return _in_file(file, file_offset, address, shift)
        symbol = self._perf_maps.find(at)
        if symbol is not None:
            return Frame(JIT, symbol[0], symbol[1] + shift, region.name, address=address)
        offset = address - region.start + region.offset if region.name else address
        return Frame(NATIVE, "", offset, region.name, address=address)

    def _region(self, address: int) -> Region | None:
        at = bisect_right(self._starts, address) - 1
        return self._regions[at] if at >= 0 and address < self._regions[at].end else None


class Remains:
    """What the kernel noted about the frames of one stack: build-id and offset in the file, or None for neither."""

    def __init__(self, addresses: Sequence[int], built: Sequence[tuple[str, int] | None], files: Files) -> None:
        self._built = dict(zip(addresses, built, strict=True))
        self._files = files

    def frame(self, address: int, at: int) -> Frame:
        """As `AddressSpace.frame`, for an address of this stack."""
        noted, shift = self._built[address] or self._neighbour(address), address - at
        if noted is None:
            file, file_offset = self._files.fixed_at(at)
        else:
            file, file_offset = self._files.with_build_id(noted[0]), noted[1] - shift
        if file is not None:
            return _in_file(file, file_offset, address, shift)
        if noted is None:
            return Frame(NATIVE, offset=address, address=address)
        return Frame(NATIVE, offset=noted[1], build_id=noted[0], address=address)

    def _neighbour(self, address: int) -> tuple[str, int] | None:
        """Build-id and offset of the caller, which the kernel left out; None unless exactly one noted file fits."""
        fitting = set()
        for other, noted in self._built.items():
            if noted is None:
                continue
            file_offset = noted[1] + address - other
            file = self._files.with_build_id(noted[0])
            table = None if file is None else file.table()
            if table is not None and file_offset > 0 and table.address(file_offset) is not None:
                fitting.add((noted[0], file_offset))
        return fitting.pop() if len(fitting) == 1 else None


def aligned(
    addresses: Sequence[int], noted: Sequence[tuple[str, int] | None], at_entry: bool
) -> list[tuple[str, int] | None]:
    """The kernel's notes, one for each address. At a function's entry the kernel's walk may leave out the caller.

    Notes fit where each offset has the same place in its page as the address has. Where none fit, all are None.
    """
    for notes in ([*noted], [*noted[:1], None, *noted[1:]] if at_entry else []):
        notes = (notes + [None] * len(addresses))[: len(addresses)]
        if not any(note and (address - note[1]) % PAGE for address, note in zip(addresses, notes, strict=True)):
            return notes
    return [None] * len(addresses)


def _in_file(file: MappedFile, file_offset: int, address: int, shift: int) -> Frame:
    """The frame of an instruction of a file, which is `shift` bytes before `address`."""
    name, offset = file.find(file_offset)
    return Frame(NATIVE, name, offset + shift, file.name, *file.source(file_offset), file.build_id(), address)


def _program(pid: int) -> tuple[int, int]:
    status = os.stat(f"/proc/{pid}/exe")
    return status.st_dev, status.st_ino


def _region(pid: int, mapping: Mapping, files: Files) -> Region:
    file = None
    if mapping.identity.inode:
        file = files.open(pid, mapping)
    return Region(mapping.start, mapping.end, mapping.offset, mapping.name, file)
