"""An open ELF file → the functions that uprobes can be put on, by name or glob; and symbol addresses for operands.

Input `usdtkit.elf.image.Image`, output `usdtkit.model.Function`; used by `usdtkit.targets` and `usdtkit.elf.notes`.
Symbols are unpacked straight from the section: to make an object of each of node's 150,000 would take seconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from usdtkit.elf.image import LONGEST_NAME, PF_X, PT_LOAD, Image
from usdtkit.errors import ElfError
from usdtkit.model import Function

STT_OBJECT, STT_FUNC, STT_GNU_IFUNC = 1, 2, 10
_SHT_SYMTAB, _SHT_DYNSYM, _SHN_UNDEF = 2, 11, 0
_SHORTEST_LITERAL = 3  # shorter ones are in most names


def functions(image: Image, *patterns: str) -> list[Function]:
    """The functions whose symbol has one of these names, or matches one of these globs (`*`, `?`, `[…]`), by address.

    Both symbol tables are searched, each (address, name) is given once, a version (`name@@GLIBC_2.34`) is not part of
    the name. Left out are symbols not defined here, indirect functions, whose symbol is that of their resolver, and the
    cold parts that compilers split off: they are jumped to, and a return probe would take what lies on the stack for
    their return address.
    """
    return _functions(image, patterns, STT_FUNC)


def indirect_functions(image: Image, *patterns: str) -> list[Function]:
    """As `functions`, but the resolvers of indirect functions: called once at start, never again."""
    return _functions(image, patterns, STT_GNU_IFUNC)


def function_names(image: Image) -> set[str]:
    """The names of all functions, to find near ones."""
    return {name for strings, rows in _tables(image) for name in _names(strings, rows)}


def addresses(image: Image) -> dict[str, int | None]:
    """The address of every defined function and variable; None where one name has several."""
    found: dict[str, int | None] = {}
    for strings, rows in _tables(image):
        for at, info, section, value, _ in rows:
            if info & 15 <= STT_FUNC and section != _SHN_UNDEF and value and at:
                name = _name(strings, at)
                found[name] = value if found.get(name, value) == value else None
    return found


def _functions(image: Image, patterns: tuple[str, ...], kind: int) -> list[Function]:
    code = [s for s in image.segments if s.type == PT_LOAD and s.flags & PF_X]
    found: dict[tuple[int, str], Function] = {}
    for strings, rows in _tables(image):
        for at, size, value in _matches(strings, rows, patterns, kind):
            offset = next((value - s.address + s.offset for s in code if 0 <= value - s.address < s.file_size), None)
            if offset is not None:
                name = _name(strings, at)
                if not name.partition(".cold")[1]:
                    found.setdefault((value, name), Function(image.path, name, value, size, offset))
    return [found[key] for key in sorted(found)]


Row = tuple[int, int, int, int, int]
"""Offset of the name, type and binding, section index, address, size: a symbol in the order of its 64-bit form."""


def _tables(image: Image) -> Iterator[tuple[bytes, Iterator[Row]]]:
    """String table and symbols of each symbol table of the file."""
    for section in image.sections:
        if section.type not in (_SHT_SYMTAB, _SHT_DYNSYM):
            continue
        if section.link >= len(image.sections):
            raise ElfError(f"{image.path}: damaged: {section.name} names string table {section.link}")
        strings, data = image.data(image.sections[section.link]), image.data(section)
        entry = struct.Struct(image.byte_order + ("IBxHQQ" if image.bits == 64 else "IIIBxH"))
        whole = memoryview(data)[: len(data) // entry.size * entry.size]
        rows: Iterator[Row] = entry.iter_unpack(whole)
        if image.bits == 32:
            rows = ((name, info, index, value, size) for name, value, size, info, index in rows)
        yield strings, rows


def _matches(
    strings: bytes, rows: Iterator[Row], patterns: tuple[str, ...], kind: int
) -> Iterator[tuple[int, int, int]]:
    """(offset of the name, size, address) of the symbols of that kind that match."""
    exact: set[int] = set()
    globs: list[str] = []
    for pattern in patterns:
        if any(character in pattern for character in "*?["):
            globs.append(pattern)
        else:
            exact |= _offsets(strings, pattern.encode("utf-8", "surrogateescape"))
    if not globs:
        if exact:
            for at, info, section, value, size in rows:
                if at in exact and info & 15 == kind and section != _SHN_UNDEF and value:
                    yield at, size, value
        return
    import fnmatch
    import re

    match = re.compile("|".join(fnmatch.translate(glob) for glob in globs)).match
    hopeful = _hopeful(strings, globs)
    for at, info, section, value, size in rows:
        if info & 15 != kind or section == _SHN_UNDEF or not value or at >= len(strings):
            continue
        if at in exact or (hopeful[at] and match(_name(strings, at))):
            yield at, size, value


def _hopeful(strings: bytes, globs: list[str]) -> bytes | bytearray:
    """For each offset of the table, non-zero if a name that begins there may match: it has a glob's longest literal.

    Searching the whole table for that is far quicker than matching every name.
    """
    marks = bytearray(len(strings))
    for glob in globs:
        literal = max(glob.partition("[")[0].replace("?", "*").split("*"), key=len).encode("utf-8", "surrogateescape")
        if len(literal) < _SHORTEST_LITERAL:
            return b"\1" * len(strings)
        at, done = strings.find(literal), 0
        while at >= 0:
            start = max(strings.rfind(b"\0", done, at) + 1, done)
            marks[start : at + 1] = b"\1" * (at + 1 - start)
            at, done = strings.find(literal, at + 1), at + 1
    return marks


def _offsets(strings: bytes, name: bytes) -> set[int]:
    """Where `name` ends a string, or stands before a version. Linkers let a name begin inside a longer one."""
    found = set()
    at = strings.find(name) if name else -1
    while at >= 0:
        if strings[at + len(name) : at + len(name) + 1] in (b"\0", b"@"):
            found.add(at)
        at = strings.find(name, at + 1)
    return found


def _name(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at, at + LONGEST_NAME)
    return strings[at:end].partition(b"@")[0].decode("utf-8", "surrogateescape") if end >= 0 else ""


def _names(strings: bytes, rows: Iterator[Row]) -> Iterator[str]:
    for at, info, section, value, _ in rows:
        if info & 15 == STT_FUNC and section != _SHN_UNDEF and value:
            yield _name(strings, at)
