"""Addresses → the functions they lie in: an open ELF file in, a compact table that answers many questions out.

Input `usdtkit.elf.image.Image` (and its debug file, where there is one); used by `usdtkit.trace.symbols`. The other
direction, names to functions, is `usdtkit.elf.symbols`.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from typing import NamedTuple

from usdtkit.elf.constants import PF_X, PT_LOAD
from usdtkit.elf.image import LONGEST_NAME, Image, Section
from usdtkit.errors import ElfError

_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_SHF_EXECINSTR = 4
_NOTYPE, _FUNC, _IFUNC = 0, 2, 10
_IS_FUNCTION, _IS_LABEL = 1, 2
# A symbol's type is the lower half of a byte.
_KINDS = bytes({_FUNC: _IS_FUNCTION, _IFUNC: _IS_FUNCTION, _NOTYPE: _IS_LABEL}.get(n & 15, 0) for n in range(256))
_ENCLOSING = 16
"""How many symbols before the nearest are looked at for one that contains the address: labels inside functions."""


class SymbolTable:
    """The functions of a file by address, in about 25 bytes a function and the string tables of the file.

    Of several names of one address that one is kept which a program would call: functions before labels, with a size
    before without, global before local, fewer leading underscores first.
    """

    def __init__(self, image: Image, *debug: Image) -> None:
        """Read the symbols of `image` and of its `debug` files, which have the same addresses. ElfError."""
        self.build_id = image.build_id
        self._segments = [s for s in image.segments if s.type == PT_LOAD and s.flags & PF_X]
        self._code = [(s.address, s.address + s.size) for s in image.sections if s.flags & _SHF_EXECINSTR]
        self._starts, self._ends, self._names = array("Q"), array("Q"), array("Q")
        self._tables = array("B")
        self._strings: list[bytes] = []
        for each in (image, *debug):
            columns = _columns(each)
            if columns is not None:
                self._add(columns)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return 25 * len(self._starts) + sum(map(len, self._strings))

    def address(self, file_offset: int) -> int | None:
        """The virtual address of an offset of the file that is mapped executable."""
        for segment in self._segments:
            if 0 <= file_offset - segment.offset < segment.file_size:
                return segment.address + file_offset - segment.offset
        return None

    def find(self, address: int) -> tuple[str, int] | None:
        """(name, offset in it) of the function at a virtual address, None where no symbol covers it."""
        nearest = bisect_right(self._starts, address) - 1
        before = range(nearest, max(-1, nearest - _ENCLOSING), -1)
        for at in before:
            if address < self._ends[at]:
                return self._found(at, address)
        # Assembly often gives no size: then the label before is as good as it gets, unless something ends in between.
        if before and all(self._ends[at] <= self._starts[nearest] for at in before):
            start = self._starts[nearest]
            if any(low <= start and address < high for low, high in self._code):
                return self._found(nearest, address)
        return None

    def begins_function(self, address: int) -> bool:
        """Whether a call leads to exactly this address: not so in the cold parts that compilers split off."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._ends[at] == address:
            return False
        return not self._found(at, address)[0].partition(".cold")[1]

    def _found(self, at: int, address: int) -> tuple[str, int]:
        strings, name = self._strings[self._tables[at]], self._names[at]
        end = strings.find(b"\0", name, name + LONGEST_NAME)
        found = strings[name:end].decode("utf-8", "surrogateescape") if end >= 0 else ""
        return found.partition("@")[0], address - self._starts[at]

    def _add(self, columns: _Columns) -> None:
        """Add the functions of one more table that have addresses of their own."""
        starts, ends, names, values = self._starts, self._ends, self._names, columns.values
        known, fresh = set(starts), len(starts)
        kinds, sections = columns.infos.translate(_KINDS), columns.sections
        order = [at for at, kind in enumerate(kinds) if kind and sections[at] and values[at] and columns.has_name(at)]
        order.sort(key=values.__getitem__)
        before = last = 0
        best: tuple[bool, bool, bool, int] | None = None  # the rank of the last one, once there is something to compare
        for at in order:
            start = values[at]
            if kinds[at] == _IS_LABEL and not columns.is_code(at):
                continue
            if start != before:
                if start in known:
                    continue
                before, best, last = start, None, at
                starts.append(start)
                ends.append(min(start + columns.sizes[at], 2**64 - 1))
                names.append(columns.names[at])
                continue
            best, rank = best or columns.rank(last), columns.rank(at)
            if rank < best:
                best, ends[-1], names[-1] = rank, min(start + columns.sizes[at], 2**64 - 1), columns.names[at]
        self._tables.extend([len(self._strings)] * (len(starts) - fresh))
        self._strings.append(columns.strings)
        if fresh:
            merged = sorted(range(len(starts)), key=starts.__getitem__)
            for column in (starts, ends, names, self._tables):
                column[:] = array(column.typecode, [column[at] for at in merged])


class _Columns(NamedTuple):
    """One symbol table, an array a field; `code` says which sections of the file hold instructions."""

    strings: bytes
    code: list[bool]
    infos: bytes
    names: array[int]
    sections: array[int]
    values: array[int]
    sizes: array[int]

    def has_name(self, at: int) -> bool:
        return 0 < self.names[at] < len(self.strings)

    def is_code(self, at: int) -> bool:
        """Whether a symbol without a type is a label in assembly, and not a mark of the assembler's ($x, .L1)."""
        section = self.sections[at]
        return section < len(self.code) and self.code[section] and self.strings[self.names[at]] not in b"$."

    def rank(self, at: int) -> tuple[bool, bool, bool, int]:
        name = self.strings[self.names[at] : self.names[at] + 2]
        info = self.infos[at]
        return info & 15 == _NOTYPE, not self.sizes[at], info < 16, len(name) - len(name.lstrip(b"_"))


def _columns(image: Image) -> _Columns | None:
    """The symbol table of a file, the dynamic one only where there is no other: it is a part of it."""
    tables = {section.type: section for section in image.sections if section.type in (_SHT_SYMTAB, _SHT_DYNSYM)}
    table = tables.get(_SHT_SYMTAB) or tables.get(_SHT_DYNSYM)
    if table is None:
        return None
    if table.link >= len(image.sections):
        raise ElfError(f"{image.path}: damaged: {table.name} names string table {table.link}")
    code = [bool(section.flags & _SHF_EXECINSTR) for section in image.sections]
    return _read(image, table, image.data(image.sections[table.link]), code)


def _read(image: Image, table: Section, strings: bytes, code: list[bool]) -> _Columns:
    entry = 24 if image.bits == 64 else 16
    data = image.data(table)
    data = data[: len(data) // entry * entry]

    def column(typecode: str, first: int) -> array[int]:
        cells = array(typecode, data)
        cells = cells[first :: entry // cells.itemsize]
        if image.little_endian != (sys.byteorder == "little"):
            cells.byteswap()
        return cells

    if image.bits == 64:
        return _Columns(strings, code, data[4::24], column("I", 0), column("H", 3), column("Q", 1), column("Q", 2))
    return _Columns(strings, code, data[12::16], column("I", 0), column("H", 7), column("I", 1), column("I", 2))
