"""Addresses → the functions they lie in: an open ELF file in, a compact table that answers many questions out.

Input `usdtkit.elf.image.Image`, and its debug file if there is one; used by `usdtkit.trace.symbols`. Uses
`usdtkit.elf.tables`. `usdtkit.elf.symbols` goes the other way, from names to functions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from usdtkit.elf import pclntab
from usdtkit.elf.constants import (
    PF_X,
    PT_LOAD,
    SHF_EXECINSTR,
    STB_LOCAL,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_NOTYPE,
)
from usdtkit.elf.image import LONGEST_NAME, Image
from usdtkit.elf.pclntab import PcTable
from usdtkit.elf.tables import Table, fullest_table

_IS_FUNCTION, _IS_LABEL = 1, 2
_KIND_OF_TYPE = {STT_FUNC: _IS_FUNCTION, STT_GNU_IFUNC: _IS_FUNCTION, STT_NOTYPE: _IS_LABEL}
_KINDS = bytes(_KIND_OF_TYPE.get(info & 15, 0) for info in range(256))
_ENCLOSING = 16
"""How many symbols before the nearest are tried for one that contains the address. Functions can have labels inside."""


class SymbolTable:
    """The functions of a file by address, in about 25 bytes a function and the string tables of the file.

    If several symbols have one address, the name that a program would call is kept: functions go before labels,
    those with a size before those without, global ones before local ones, and fewer leading underscores go first.
    """

    def __init__(self, image: Image, *debug: Image) -> None:
        """Read the symbols of `image` and of its `debug` files, which have the same addresses. ElfError."""
        self.build_id = image.build_id
        self._segments = [s for s in image.segments if s.type == PT_LOAD and s.flags & PF_X]
        # A file that can be loaded anywhere begins at 0.
        self._is_fixed = all(segment.address for segment in image.segments if segment.type == PT_LOAD)
        self._code = [(s.address, s.address + s.size) for s in image.sections if s.flags & SHF_EXECINSTR]
        self._starts, self._ends, self._names = array("Q"), array("Q"), array("Q")
        self._tables = array("B")
        self._strings: list[bytes] = []
        self._lines: PcTable | None = None
        for file in (image, *debug):
            table = fullest_table(file)
            if table is not None:
                self._add(file, table)
                self._lines = self._lines or table.of_go
        self._lines = self._lines or pclntab.find_lines(image)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        lines = 0 if self._lines is None else self._lines.size
        return 25 * len(self._starts) + sum(map(len, self._strings)) + lines

    def address(self, file_offset: int) -> int | None:
        """The virtual address of an offset of the file that is mapped executable."""
        for segment in self._segments:
            if 0 <= file_offset - segment.offset < segment.file_size:
                return segment.address + file_offset - segment.offset
        return None

    def fixed_offset(self, address: int) -> int | None:
        """The offset in the file of an address in the memory of every process; None if it differs, or is not code."""
        for segment in self._segments if self._is_fixed else ():
            if 0 <= address - segment.address < segment.file_size:
                return segment.offset + address - segment.address
        return None

    def find(self, address: int) -> tuple[str, int] | None:
        """(name, offset in it) of the function at a virtual address, None if no symbol covers it."""
        nearest = bisect_right(self._starts, address) - 1
        before = range(nearest, max(-1, nearest - _ENCLOSING), -1)
        for at in before:
            if address < self._ends[at]:
                return self._found(at, address)
        # Assembly often gives no size. The nearest label before the address is then the best answer, unless a function
        # ends in between.
        if before and all(self._ends[at] <= self._starts[nearest] for at in before):
            start = self._starts[nearest]
            if any(low <= start and address < high for low, high in self._code):
                return self._found(nearest, address)
        return None

    def source(self, address: int) -> str:
        """`FILE:LINE` of the source at a virtual address of a Go program; "" if it is not known."""
        return "" if self._lines is None else self._lines.source(address)

    def begins_function(self, address: int) -> bool:
        """Whether a call leads to exactly this address: not so in the cold parts that compilers split off."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._ends[at] == address:
            return False
        return not self._found(at, address)[0].partition(".cold")[1]

    def _found(self, at: int, address: int) -> tuple[str, int]:
        strings, name = self._strings[self._tables[at]], self._names[at]
        end = strings.find(b"\0", name, name + LONGEST_NAME)
        text = strings[name:end].decode("utf-8", "surrogateescape") if end >= 0 else ""
        return text.partition("@")[0], address - self._starts[at]

    def _add(self, image: Image, table: Table) -> None:
        """Add those functions of one more table whose addresses no table before it has."""
        starts, ends, names = self._starts, self._ends, self._names
        known, count_before = set(starts), len(starts)
        candidates = _Candidates(image, table)
        previous = best_index = 0
        best_rank: tuple[bool, bool, bool, int] | None = None  # computed when there are two names to compare
        for index in candidates:
            start = table.values[index]
            if start != previous:
                if start in known:
                    continue
                previous, best_rank, best_index = start, None, index
                starts.append(start)
                ends.append(min(start + table.sizes[index], 2**64 - 1))
                names.append(table.names[index])
                continue
            best_rank, rank = best_rank or candidates.rank(best_index), candidates.rank(index)
            if rank < best_rank:
                best_rank = rank
                ends[-1], names[-1] = min(start + table.sizes[index], 2**64 - 1), table.names[index]
        self._tables.extend([len(self._strings)] * (len(starts) - count_before))
        self._strings.append(table.strings)
        if count_before:
            merged = sorted(range(len(starts)), key=starts.__getitem__)
            for column in (starts, ends, names, self._tables):
                column[:] = array(column.typecode, [column[at] for at in merged])


class _Candidates:
    """The symbols of one table that may name code, as `SymbolTable` compares them."""

    def __init__(self, image: Image, table: Table) -> None:
        self._table = table
        self._is_code = [bool(section.flags & SHF_EXECINSTR) for section in image.sections]

    def __iter__(self) -> Iterator[int]:
        """The indexes of defined functions and labels in code that have a name, by address."""
        table = self._table
        kinds, sections, values, names = table.infos.translate(_KINDS), table.sections, table.values, table.names
        strings_size = len(table.strings)
        indexes = [
            index
            for index, kind in enumerate(kinds)
            if kind and sections[index] and values[index] and 0 < names[index] < strings_size
        ]
        indexes.sort(key=values.__getitem__)
        return (index for index in indexes if kinds[index] != _IS_LABEL or self._is_label(index))

    def _is_label(self, index: int) -> bool:
        """Whether a symbol without a type is a label in assembly, and not a mark of the assembler's ($x, .L1)."""
        table, section = self._table, self._table.sections[index]
        in_code = section < len(self._is_code) and self._is_code[section]
        return in_code and table.strings[table.names[index]] not in b"$."

    def rank(self, index: int) -> tuple[bool, bool, bool, int]:
        """Lower is better: see `SymbolTable`."""
        table = self._table
        name = table.strings[table.names[index] : table.names[index] + 2]
        info = table.infos[index]
        return (
            info & 15 == STT_NOTYPE,
            not table.sizes[index],
            info >> 4 == STB_LOCAL,
            len(name) - len(name.lstrip(b"_")),
        )
