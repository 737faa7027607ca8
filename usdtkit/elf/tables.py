"""An open ELF file → its symbol tables as columns, so that 150,000 symbols cost milliseconds.

Input `usdtkit.elf.image.Image`, output `Table`; used by everything in `usdtkit.elf` that reads symbols. If a file was
stripped, `usdtkit.elf.debugfiles` finds the rest, and `usdtkit.elf.pclntab` what a Go program has in any case. Making
an object for each symbol would take seconds. So the fields of all symbols are cut out of the section as arrays when
they are first asked for, and single symbols are unpacked one by one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from operator import sub

from usdtkit.elf import pclntab
from usdtkit.elf.constants import (
    SHN_UNDEF,
    SHT_DYNSYM,
    SHT_GNU_HASH,
    SHT_GNU_VERDEF,
    SHT_GNU_VERSYM,
    SHT_SYMTAB,
    STB_GLOBAL,
    STB_WEAK,
    STT_FUNC,
)
from usdtkit.elf.image import LONGEST_NAME, Image, Section, native
from usdtkit.elf.pclntab import PcTable
from usdtkit.errors import ElfError
from usdtkit.records import NamedTuple

_MOST_VERSIONS = 0x8000


class Symbol(NamedTuple):
    """One symbol; `at` is the offset of its name in the table's strings, `value` its virtual address."""

    at: int
    info: int
    section: int
    value: int
    size: int

    @property
    def type(self) -> int:
        """STT_FUNC and its like."""
        return self.info & 15

    @property
    def is_function(self) -> bool:
        """Whether it is a function; an indirect one does not count."""
        return self.info & 15 == STT_FUNC

    @property
    def is_defined(self) -> bool:
        """Whether it is in this file, and at an address."""
        return self.section != SHN_UNDEF and self.value != 0

    @property
    def is_weak(self) -> bool:
        """Whether a symbol of the same name in another file goes before it."""
        return self.info >> 4 == STB_WEAK


class Table:
    """One symbol table: a column for each field, in the order of the symbols.

    `names` are the offsets of their names in `strings`. `of_go` is the table of Go's runtime that this one was made of,
    None if it is the file's own. ElfError is raised if the table is damaged.
    """

    of_go: PcTable | None = None

    def __init__(self, image: Image, data: bytes, strings: bytes, section: Section | None = None) -> None:
        """A table of these entries, as those of the file lie in it; `section` is where they are from."""
        self._wide = image.bits == 64
        self._entry = _entry(image)
        self.is_dynamic = section is not None and section.type == SHT_DYNSYM
        self._image = image
        self._index = image.sections.index(section) if section is not None else -1
        self._versions: tuple[bytes, dict[int, str]] | None = None
        self.strings = strings
        self._data = data[: len(data) // self._entry.size * self._entry.size]

    @classmethod
    def of(cls, image: Image, section: Section) -> Table:
        """Read .symtab or .dynsym of a file."""
        if section.link >= len(image.sections):
            raise ElfError(f"{image.path}: damaged symbol table: string table {section.link}")
        return cls(image, image.data(section), image.data(image.sections[section.link]), section)

    @cached_property
    def names(self) -> array[int]:
        """st_name of all symbols."""
        return self._column("I", 0)

    @cached_property
    def values(self) -> array[int]:
        """st_value of all symbols, which are virtual addresses."""
        return self._column("Q", 1) if self._wide else self._column("I", 1)

    @cached_property
    def sizes(self) -> array[int]:
        """st_size of all symbols, in bytes."""
        return self._column("Q", 2) if self._wide else self._column("I", 2)

    @cached_property
    def sections(self) -> array[int]:
        """st_shndx of all symbols."""
        return self._column("H", 3 if self._wide else 7)

    @cached_property
    def infos(self) -> bytes:
        """st_info of all symbols: the binding in the upper half of the byte, the type in the lower."""
        return self._data[4::24] if self._wide else self._data[12::16]

    def _column(self, code: str, first: int) -> array[int]:
        """The field of `code`'s width that stands `first` such widths from the start of each entry."""
        words = array(code, self._data)
        return native(words[first :: self._entry.size // words.itemsize], self._image.order)

    @property
    def data(self) -> bytes:
        """All entries as they are in the file."""
        return self._data

    def __len__(self) -> int:
        return len(self._data) // self._entry.size

    def __getitem__(self, index: int) -> Symbol:
        if self._wide:
            at, info, _, section, value, size = self._entry.unpack_from(self._data, index * self._entry.size)
        else:
            at, value, size, info, _, section = self._entry.unpack_from(self._data, index * self._entry.size)
        return Symbol(at, info, section, value, size)

    def __iter__(self) -> Iterator[Symbol]:
        if self._wide:
            for at, info, _, section, value, size in self._entry.iter_unpack(self._data):
                yield Symbol(at, info, section, value, size)
        else:
            for at, value, size, info, _, section in self._entry.iter_unpack(self._data):
                yield Symbol(at, info, section, value, size)

    def name(self, at: int) -> str:
        """The name at an offset without its version; bad UTF-8 as surrogate escapes, "" if there is none."""
        return self._text(at).partition(b"@")[0].decode("utf-8", "surrogateescape")

    def version(self, index: int) -> str:
        """The version of a symbol ("GLIBC_2.34"), "" if it has none."""
        if version := self._text(self.names[index]).partition(b"@")[2]:
            return version.lstrip(b"@").decode("utf-8", "surrogateescape")
        number, versions = self._version_number(index)
        return versions.get(number & 0x7FFF, "")

    def is_superseded(self, index: int) -> bool:
        """Whether a symbol has an old version, to which programs are no longer linked."""
        if version := self._text(self.names[index]).partition(b"@")[2]:
            return not version.startswith(b"@")
        return self._version_number(index)[0] > 0x7FFF

    def _version_number(self, index: int) -> tuple[int, dict[int, str]]:
        """The number of a symbol's version, with the bit that hides an old one, and what numbers stand for."""
        if self._versions is None:
            self._versions = self._read_versions()
        numbers, versions = self._versions
        if 2 * index + 2 > len(numbers):
            return 0, {}
        return struct.unpack_from(self._image.byte_order + "H", numbers, 2 * index)[0], versions

    def _text(self, at: int) -> bytes:
        end = self.strings.find(b"\0", at, at + LONGEST_NAME)
        return self.strings[at:end] if end >= 0 else b""

    def _read_versions(self) -> tuple[bytes, dict[int, str]]:
        """The version number of each symbol, and what each number stands for."""
        image, numbers, versions = self._image, b"", {}
        for section in image.sections:
            if section.type == SHT_GNU_VERSYM and section.link == self._index:
                numbers = image.data(section)
        for section in image.sections if numbers else ():
            if section.type == SHT_GNU_VERDEF and section.link < len(image.sections):
                strings = image.data(image.sections[section.link])
                versions = dict(_version_names(image, image.data(section), strings))
        return numbers, versions


def tables(image: Image) -> Iterator[Table]:
    """The .symtab, then the .dynsym of a file, if it has them; of several of one kind, the first.

    If a Go program was stripped, the table that its runtime uses comes first.
    """
    sections = [_section(image, SHT_SYMTAB), _section(image, SHT_DYNSYM)]
    if sections[0] is None and (table := pclntab.find(image)) is not None:
        yield _of_go(image, table)
    for section in sections:
        if section is not None:
            yield Table.of(image, section)


def table_of_exports(image: Image, *names: str) -> Table | None:
    """Return the .dynsym, if it may define one of these names; of a file without any, the .symtab.

    Most files define none of them. The filter that the loader has in .gnu.hash says so by a read of 8 bytes for each
    name, where searching the names of node would take 20 ms.
    """
    section = _section(image, SHT_DYNSYM)
    if section is None:
        return fullest_table(image)
    filter = next((section for section in image.sections if section.type == SHT_GNU_HASH), None)
    may = filter is None or any(_may_have(image, filter, name) for name in names)
    return Table.of(image, section) if may else None


def _may_have(image: Image, filter: Section, name: str) -> bool:
    """Whether the Bloom filter of a .gnu.hash, of two bits a name, lets a name pass."""
    width = image.bits // 8
    head = struct.Struct(f"{image.byte_order}IIII")
    if filter.size < head.size:
        return False
    _, _, words, shift = head.unpack(image.read(filter.offset, head.size))
    if not 0 < words <= (filter.size - head.size) // width:
        return False
    number = 5381
    for byte in name.encode():
        number = (number * 33 + byte) & 0xFFFF_FFFF
    place = filter.offset + head.size + number // image.bits % words * width
    word = int.from_bytes(image.read(place, width), image.order)
    return bool(word >> number % image.bits & word >> (number >> (shift & 31)) % image.bits & 1)


def fullest_table(image: Image) -> Table | None:
    """The first of `tables`, which has all that the others have; None if there is none."""
    return next(tables(image), None)


def dynamic_table(image: Image) -> Table | None:
    """The .dynsym of a file, to whose symbols relocations refer; None if it has none."""
    section = _section(image, SHT_DYNSYM)
    return None if section is None else Table.of(image, section)


def all_tables(image: Image) -> Iterator[Table]:
    """The symbol tables of the file, then that of its debug data, if it was stripped."""
    yield from tables(image)
    if _section(image, SHT_SYMTAB) is None:
        from usdtkit.elf import debugfiles  # lazy: only stripped files need it

        for debug in debugfiles.debug_images(image):
            with debug:
                yield from tables(debug)


def _section(image: Image, kind: int) -> Section | None:
    return next((section for section in image.sections if section.type == kind), None)


def _entry(image: Image) -> struct.Struct:
    return struct.Struct(image.byte_order + ("IBBHQQ" if image.bits == 64 else "IIIBBH"))


def _of_go(image: Image, table: PcTable) -> Table:
    """The symbols that Go's own table would be as a .symtab."""
    table.tell_apart(image)
    starts, info, zero, section = table.starts, repeat(STB_GLOBAL << 4 | STT_FUNC), repeat(0), repeat(1)
    sizes = map(sub, starts[1:], starts)
    wide: tuple[Iterable[int], ...] = (table.names, info, zero, section, starts, sizes)
    narrow: tuple[Iterable[int], ...] = (table.names, starts, sizes, info, zero, section)
    entries = map(_entry(image).pack, *(wide if image.bits == 64 else narrow))
    made = Table(image, b"".join(entries), table.strings)
    made.of_go = table
    return made


def _version_names(image: Image, data: bytes, strings: bytes) -> Iterator[tuple[int, str]]:
    entry, name = struct.Struct(f"{image.byte_order}HHHHIII"), struct.Struct(f"{image.byte_order}I")
    position = 0
    for _ in range(_MOST_VERSIONS):  # the links between them might form a cycle
        if position + entry.size > len(data):
            return
        _, flags, number, _, _, auxiliary, following = entry.unpack_from(data, position)
        at = position + auxiliary
        if not flags & 1 and at + name.size <= len(data):  # the first is the file itself
            start = name.unpack_from(data, at)[0]
            end = strings.find(b"\0", start, start + 256)
            yield number & 0x7FFF, strings[start : max(end, start)].decode("utf-8", "surrogateescape")
        if not following:
            return
        position += following
