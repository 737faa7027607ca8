"""An open ELF file → the functions that uprobes can be put on, by name, glob or regex; symbol addresses for operands.

Input `usdtkit.elf.image.Image`, output `usdtkit.model.Function`; used by `usdtkit.targets`, `usdtkit.linkage` and
`usdtkit.elf.notes`. Uses `usdtkit.elf.tables` and `usdtkit.elf.matching`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from usdtkit.elf import golang
from usdtkit.elf.constants import PF_X, PT_LOAD, STT_FUNC, STT_GNU_IFUNC
from usdtkit.elf.image import Image
from usdtkit.elf.instructions import LONGEST, is_safe
from usdtkit.elf.matching import Pattern as Pattern
from usdtkit.elf.matching import is_demangled, is_name, matches, offsets_of
from usdtkit.elf.tables import Table, all_tables, dynamic_table
from usdtkit.errors import ElfError
from usdtkit.model import Function
from usdtkit.records import replace

_MOST_NEAR, _LONGEST_NEAR = 200_000, 256
_MOST_NAMESAKES, _MOST_EFFORT = 256, 1 << 30  # symbols; bytes that are searched
# What compilers put behind the name of a function if they make a changed copy of it, whose arguments may be others,
# or if they make one of several functions. Each is called like any other function, which a .cold part is not.
_COPY = re.compile(rb"(?:\.(?:constprop|isra|part|lto_priv|llvm|specialized|__uniq)\.[0-9]+)+")


def functions(image: Image, *patterns: Pattern, aliases: bool = False, copies: bool = False) -> list[Function]:
    """Return the functions whose symbol has one of these names, or matches one of these patterns, by address.

    The symbol tables are searched. If the file was stripped and does not answer by itself, the tables of its debug
    data are searched as well. Each (address, name) is returned once; with `aliases` it comes with its other names.
    Some symbols are left out:

    - symbols that are not defined in this file
    - indirect functions, whose symbol is that of their resolver
    - the cold parts that compilers split off: other code jumps to them, and a return probe would take whatever lies on
      the stack for their return address
    - functions whose first instruction the kernel mistakes for another (see `usdtkit.elf.instructions`)

    With `copies`, a name without a symbol means the copies that the compiler has made of that function in its place:
    `helper.lto_priv.0` and `helper.lto_priv.1` if two files have a `helper`, `helper.constprop.0` if the compiler
    has put in an argument that is always the same. Their arguments may differ from those in the source.
    """
    matching = _functions(image, patterns, STT_FUNC, aliases)
    if copies and (names := _without_symbol(patterns, matching)) and (copied := _copies(image, names)):
        return _functions(image, [*patterns, *copied], STT_FUNC, aliases)
    return matching


def exported(image: Image, *names: str) -> list[Function]:
    """Return those of `functions` that the dynamic loader sees. A program's exports go before those of libraries."""
    defined = functions(image, *names)
    table = dynamic_table(image) if defined else None
    if table is None:
        return []
    addresses = {table.values[index] for index, _ in matches(table, names) if table[index].is_defined}
    return [function for function in defined if function.address in addresses]


def indirect_functions(image: Image, *patterns: Pattern) -> list[Function]:
    """Return the resolvers of indirect functions that match like `functions`. They are called once, at the start."""
    return _functions(image, patterns, STT_GNU_IFUNC, False)


def function_names(image: Image) -> set[str]:
    """Return the names of functions, as many as can be compared in a moment, in which near ones are looked for."""
    names: set[str] = set()
    for table in all_tables(image):
        for symbol in islice(table, _MOST_NEAR):
            if symbol.is_function and symbol.is_defined and len(name := table.name(symbol.at)) <= _LONGEST_NEAR:
                names.add(name)
    return names


class Addresses:
    """Looks up where the functions and variables of a file are, one by one, for operands that spell their names."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._tables: list[Table] | None = None
        self._known: dict[str, int | None] = {}
        self._effort = _MOST_EFFORT

    def find(self, name: str) -> int | None:
        """Return the virtual address of a defined function or variable; None if none or several have the name."""
        if name not in self._known:
            if self._tables is None:
                self._tables = list(all_tables(self._image))
            addresses = {address for table in self._tables for address in self._in(table, name)}
            self._known[name] = addresses.pop() if len(addresses) == 1 else None
        return self._known[name]

    def _in(self, table: Table, name: str) -> Iterator[int]:
        """Search the table. Files spell few names; of a file with many, the last are not searched for."""
        self._effort -= len(table.strings) + 4 * len(table.names)
        if self._effort < 0:
            return
        for at in islice(offsets_of(table.strings, name.encode("utf-8", "surrogateescape")), _MOST_NAMESAKES):
            index = -1
            for _ in range(_MOST_NAMESAKES):
                try:
                    index = table.names.index(at, index + 1)
                except ValueError:
                    break
                symbol = table[index]
                if symbol.type <= STT_FUNC and symbol.is_defined:
                    yield symbol.value


def _functions(image: Image, patterns: Sequence[Pattern], kind: int, aliases: bool) -> list[Function]:
    code = [segment for segment in image.segments if segment.type == PT_LOAD and segment.flags & PF_X]
    by_place: dict[tuple[int, str], Function] = {}
    names_at: dict[int, list[str]] = {}
    missing = {pattern for pattern in patterns if is_name(pattern)}
    has_vectors = image.machine in ("x86_64", "i386")
    convention = golang.convention(image) or ("i386" if image.machine == "i386" else "")
    are_all_names = len(missing) == len(patterns)
    for table in all_tables(image):
        for index, demangled in matches(table, patterns):
            symbol = table[index]
            offset = next(
                (symbol.value - s.address + s.offset for s in code if 0 <= symbol.value - s.address < s.file_size), None
            )
            if symbol.type != kind or not symbol.is_defined or offset is None:
                continue
            if offset >= image.size:
                raise ElfError(f"{image.path}: truncated: {table.name(symbol.at)} lies beyond the end of the file")
            if has_vectors and not is_safe(image.read(offset, min(LONGEST, image.size - offset)), image.machine):
                continue
            name = table.name(symbol.at)
            key = symbol.value, name
            if ".cold" in name or (key in by_place and by_place[key].version):
                continue
            by_place[key] = Function(
                image.path,
                name,
                symbol.value,
                symbol.size,
                offset,
                version=table.version(index),
                demangled=demangled,
                indirect=kind == STT_GNU_IFUNC,
                convention="go-stack" if convention == "go" and name.endswith(golang.ASSEMBLER) else convention,
                file=image.file,
            )
            missing.discard(name)
        if aliases:
            _add_names(table, {address for address, _ in by_place}, kind, names_at)
        if are_all_names and not missing and not aliases:
            break
    ordered = [by_place[key] for key in sorted(by_place)]
    if not aliases:
        return ordered
    return [
        replace(f, aliases=tuple(sorted({name for name in names_at[f.address] if name != f.name}))) for f in ordered
    ]


def _without_symbol(patterns: Sequence[Pattern], matching: Sequence[Function]) -> list[str]:
    """The patterns that are names as a symbol table has them, except those that were found."""
    names = {function.name for function in matching}
    return [
        pattern
        for pattern in patterns
        if isinstance(pattern, str)
        and pattern not in names
        and is_name(pattern)
        and not is_demangled(pattern)
        and ":" not in pattern
    ]


def _copies(image: Image, names: Sequence[str]) -> list[str]:
    """The names of the copies that the compiler has made of functions."""
    copies: dict[str, None] = {}
    for table in all_tables(image):
        for name in names:
            prefix = name.encode("utf-8", "surrogateescape") + b"."
            at = table.strings.find(prefix)
            for _ in range(_MOST_NAMESAKES):
                if at < 0:
                    break
                copy = table.name(at)
                if _COPY.fullmatch(copy.encode("utf-8", "surrogateescape")[len(prefix) - 1 :]):
                    copies[copy] = None
                at = table.strings.find(prefix, at + len(prefix))
    return list(copies)


def _add_names(table: Table, addresses: set[int], kind: int, names_at: dict[int, list[str]]) -> None:
    for index, value in enumerate(table.values):
        if value in addresses:
            symbol = table[index]
            if symbol.type == kind and symbol.is_defined:
                names_at.setdefault(value, []).append(table.name(symbol.at))
