"""A small ELF64 writer: named sections, segments over runs of them, symbols and notes → the bytes of a file.

Input: sections whose contents may depend on where everything lies. Output: bytes; nothing is read or written here.
Used by `usdtkit.probes.image` for provider files, and by tests for exact, odd or broken files. Little-endian only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from usdtkit.architectures import architecture
from usdtkit.elf.constants import (
    DT_HASH,
    DT_NULL,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMENT,
    DT_SYMTAB,
    ET_DYN,
    NT_STAPSDT,
    PT_LOAD,
    SHF_ALLOC,
    SHF_WRITE,
    SHT_DYNAMIC,
    SHT_DYNSYM,
    SHT_HASH,
    SHT_STRTAB,
    SHT_SYMTAB,
    STAPSDT_OWNER,
    STB_GLOBAL,
    STB_LOCAL,
    STT_FUNC,
)
from usdtkit.errors import UsageError

_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")


class Layout(NamedTuple):
    """Where the sections lie: index in the section table, file offset and size in bytes, virtual address (0: none)."""

    indices: dict[str, int]
    offsets: dict[str, int]
    sizes: dict[str, int]
    addresses: dict[str, int]


Content: TypeAlias = "bytes | Callable[[Layout], bytes]"


class Section(NamedTuple):
    """One section. A content that depends on the layout is a function of it, and must not change its length.

    `link` names another section; `align` is in bytes. Only sections with SHF_ALLOC get an address.
    """

    name: str
    type: int
    content: Content
    flags: int = 0
    align: int = 1
    entry_size: int = 0
    link: str = ""
    info: int = 0


class Segment(NamedTuple):
    """One program header over the run of sections `first`…`last`; without names it covers nothing (PT_GNU_STACK).

    A PT_LOAD starts on a page of its own, except one with `headers`, which begins at the start of the file.
    """

    type: int
    flags: int
    first: str = ""
    last: str = ""
    headers: bool = False
    align: int = 8


class Symbol(NamedTuple):
    """A symbol at `offset` bytes into `section`; an empty `section` makes it undefined."""

    name: str
    section: str
    offset: int = 0
    size: int = 0
    type: int = STT_FUNC
    binding: int = STB_GLOBAL


def align(offset: int, alignment: int) -> int:
    """Return the first multiple of `alignment` (a power of two) that is not below `offset`."""
    return (offset + alignment - 1) & -alignment


def note(owner: str, type: int, description: bytes) -> bytes:
    """Return one note. Its length field holds the exact length of the description, without the padding to 4 bytes."""
    name = owner.encode() + b"\0"
    parts = struct.pack("<III", len(name), len(description), type), name, description
    return b"".join(part.ljust(align(len(part), 4), b"\0") for part in parts)


def stapsdt_note(
    provider: str, name: str, arguments: str, *, address: int, base: int = 0, semaphore: int = 0, word: str = "Q"
) -> bytes:
    """Return the note of one USDT site: three addresses of the file, then three NUL-terminated strings."""
    strings = "".join(f"{text}\0" for text in (provider, name, arguments))
    return note(STAPSDT_OWNER, NT_STAPSDT, struct.pack(f"<3{word}", address, base, semaphore) + strings.encode())


def string_table(names: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    """Return a string table and the offset of each name in it."""
    table, offsets = bytearray(b"\0"), {"": 0}
    for name in names:
        if name not in offsets:
            offsets[name] = len(table)
            table += name.encode() + b"\0"
    return bytes(table), offsets


def symbol_section(symbols: Sequence[Symbol], names: dict[str, int], *, dynamic: bool = False) -> Section:
    """Return .symtab, or .dynsym, given the offsets of the names in its string table. Local symbols come first."""

    def content(layout: Layout) -> bytes:
        entries = [bytes(_SYMBOL.size)]
        for symbol in symbols:
            address = (layout.addresses[symbol.section] if symbol.section else 0) + symbol.offset
            index = layout.indices[symbol.section] if symbol.section else 0
            info = symbol.binding << 4 | symbol.type
            entries.append(_SYMBOL.pack(names[symbol.name], info, 0, index, address, symbol.size))
        return b"".join(entries)

    first_global = 1 + sum(symbol.binding == STB_LOCAL for symbol in symbols)
    if dynamic:
        return Section(".dynsym", SHT_DYNSYM, content, SHF_ALLOC, 8, _SYMBOL.size, ".dynstr", first_global)
    return Section(".symtab", SHT_SYMTAB, content, 0, 8, _SYMBOL.size, ".strtab", first_global)


def static_sections(symbols: Sequence[Symbol]) -> tuple[Section, Section]:
    """Return .symtab and .strtab, for tools."""
    strings, names = string_table(symbol.name for symbol in symbols)
    return symbol_section(symbols, names), Section(".strtab", SHT_STRTAB, strings)


def dynamic_sections(symbols: Sequence[Symbol], soname: str) -> tuple[Section, Section, Section, Section]:
    """Return .hash, .dynsym, .dynstr and .dynamic: what dlopen and dlsym need.

    .dynamic is writable because glibc before 2.35 relocates it in place.
    """
    strings, names = string_table([*(symbol.name for symbol in symbols), soname])

    def dynamic(layout: Layout) -> bytes:
        entries = (
            (DT_SONAME, names[soname]),
            (DT_HASH, layout.addresses[".hash"]),
            (DT_STRTAB, layout.addresses[".dynstr"]),
            (DT_SYMTAB, layout.addresses[".dynsym"]),
            (DT_STRSZ, len(strings)),
            (DT_SYMENT, _SYMBOL.size),
            (DT_NULL, 0),
        )
        return b"".join(_DYNAMIC.pack(*entry) for entry in entries)

    return (
        Section(".hash", SHT_HASH, hash_table(symbols), SHF_ALLOC, 8, 4, ".dynsym"),
        symbol_section(symbols, names, dynamic=True),
        Section(".dynstr", SHT_STRTAB, strings, SHF_ALLOC),
        Section(".dynamic", SHT_DYNAMIC, dynamic, SHF_ALLOC | SHF_WRITE, 8, _DYNAMIC.size, ".dynstr"),
    )


def hash_table(symbols: Sequence[Symbol]) -> bytes:
    """Return the System V hash table of a .dynsym that holds these symbols in this order."""
    buckets = [0] * max(1, len(symbols))
    chains = [0] * (len(symbols) + 1)
    for index, symbol in enumerate(symbols, start=1):
        bucket = sysv_hash(symbol.name) % len(buckets)
        chains[index], buckets[bucket] = buckets[bucket], index
    words = [len(buckets), len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def sysv_hash(name: str) -> int:
    """Return the hash of the System V ABI, 28 bits."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


def write(
    sections: Sequence[Section],
    segments: Sequence[Segment],
    *,
    machine: str = "x86_64",
    type: int = ET_DYN,
    page: int = 0x1000,
    base: int = 0,
) -> bytes:
    """Return the file: headers, the sections in the order given, .shstrtab, the section table.

    `machine` is what uname calls the architecture. A virtual address is `base` (a multiple of `page`, bytes) plus the
    file offset. The same input gives the same bytes.
    """
    target = architecture(machine)
    if target is None or target.bits != 64 or not target.little_endian:
        raise UsageError(
            f"ELF files cannot be written for {machine}", hint="only 64-bit little-endian machines are supported"
        )
    names, name_offsets = string_table([*(section.name for section in sections), ".shstrtab"])
    sections = [*sections, Section(".shstrtab", SHT_STRTAB, names)]
    if len({section.name for section in sections}) != len(sections):
        raise UsageError("two sections of an ELF file to be written have the same name")

    headers = _FILE_HEADER.size + len(segments) * _SEGMENT_HEADER.size
    layout, table = _lay_out(sections, segments, headers, page, base)

    image = bytearray(align(table, 8))
    for section in sections:
        content = _content(section, layout)
        if len(content) != layout.sizes[section.name]:
            raise UsageError(f"the content of section {section.name} changed its length with the layout")
        image[layout.offsets[section.name] : layout.offsets[section.name] + len(content)] = content
    table = len(image)
    image += bytes(_SECTION_HEADER.size)
    for section in sections:
        image += _SECTION_HEADER.pack(
            name_offsets[section.name],
            section.type,
            section.flags,
            layout.addresses[section.name],
            layout.offsets[section.name],
            layout.sizes[section.name],
            layout.indices[section.link] if section.link else 0,
            section.info,
            section.align,
            section.entry_size,
        )

    image[: _FILE_HEADER.size] = _FILE_HEADER.pack(
        b"\x7fELF\x02\x01\x01",
        type,
        target.number,
        1,
        0,
        _FILE_HEADER.size if segments else 0,
        table,
        0,
        _FILE_HEADER.size,
        _SEGMENT_HEADER.size,
        len(segments),
        _SECTION_HEADER.size,
        len(sections) + 1,
        len(sections),
    )
    for index, segment in enumerate(segments):
        place = _FILE_HEADER.size + index * _SEGMENT_HEADER.size
        image[place : place + _SEGMENT_HEADER.size] = _segment_header(segment, layout, page, base)
    return bytes(image)


def _content(section: Section, layout: Layout) -> bytes:
    return section.content if isinstance(section.content, bytes) else section.content(layout)


def _lay_out(
    sections: Sequence[Section], segments: Sequence[Segment], headers: int, page: int, base: int
) -> tuple[Layout, int]:
    """Return the layout and the offset at which the last section ends."""
    names = [section.name for section in sections]
    indices = {name: index for index, name in enumerate(names, start=1)}
    # Lengths do not depend on addresses, so any layout measures them; those already measured are there to be read.
    layout = Layout(indices, dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0))
    for section in sections:
        layout.sizes[section.name] = len(_content(section, layout))

    paged = {segment.first for segment in segments if segment.type == PT_LOAD and not segment.headers}
    end = headers
    for section in sections:
        end = align(end, max(section.align, page) if section.name in paged else section.align)
        layout.offsets[section.name] = end
        layout.addresses[section.name] = base + end if section.flags & SHF_ALLOC else 0
        end += layout.sizes[section.name]
    return layout, end


def _segment_header(segment: Segment, layout: Layout, page: int, base: int) -> bytes:
    if not segment.last:
        return _SEGMENT_HEADER.pack(segment.type, segment.flags, 0, 0, 0, 0, 0, segment.align)
    start = 0 if segment.headers else layout.offsets[segment.first]
    size = layout.offsets[segment.last] + layout.sizes[segment.last] - start
    alignment = page if segment.type == PT_LOAD else segment.align
    return _SEGMENT_HEADER.pack(segment.type, segment.flags, start, base + start, base + start, size, size, alignment)
