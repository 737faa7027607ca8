"""An open ELF file → the functions that uprobes can be put on, by name, glob or regex; symbol addresses for operands.

Input `usdtkit.elf.image.Image`, output `usdtkit.model.Function`; used by `usdtkit.targets`, `usdtkit.linkage` and
`usdtkit.elf.notes`. Uses `usdtkit.elf.tables`, `usdtkit.elf.matching` and `usdtkit.elf.sourcenames`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from usdtkit.elf import golang, sourcenames
from usdtkit.elf.constants import PF_X, PT_LOAD, STT_FUNC, STT_GNU_IFUNC
from usdtkit.elf.image import Image
from usdtkit.elf.instructions import LONGEST, is_safe
from usdtkit.elf.matching import Pattern as Pattern
from usdtkit.elf.matching import matches, offsets_of
from usdtkit.elf.tables import Table, all_tables, dynamic_table, table_of_exports
from usdtkit.errors import ElfError
from usdtkit.model import Function
from usdtkit.naming import exact, is_the_one, name_of, qualified
from usdtkit.records import replace

_MOST_NEAR, _LONGEST_NEAR = 200_000, 256
_MOST_NAMESAKES, _MOST_EFFORT = 256, 1 << 30  # symbols; bytes that are searched
# What compilers put behind the name of a function if they make a changed copy of it, whose arguments may be others,
# or if they make one of several functions. Each is called like any other function, which a .cold part is not.
_COPY = re.compile(r"(?:\.(?:constprop|isra|part|lto_priv|llvm|specialized|__uniq)\.[0-9]+)+$")
_INSTANCE = re.compile(r"\[[^][]*\]")  # what Go puts behind the name of a generic function
_OF_C = re.compile(r"[A-Za-z_]\w*\(.*\)", re.ASCII | re.DOTALL)  # a function of C with its parameters


def functions(image: Image, *patterns: Pattern, aliases: bool = False, in_source: bool = False) -> list[Function]:
    """Return the functions whose symbol has one of these names, or matches one of these patterns, by address.

    The symbol tables are searched. If the file was stripped and does not answer by itself, the tables of its debug
    data are searched as well. Each (address, name) is returned once; with `aliases` it comes with its other names.
    Some symbols are left out:

    - symbols that are not defined in this file
    - indirect functions, whose symbol is that of their resolver
    - the cold parts that compilers split off: other code jumps to them, and a return probe would take whatever lies on
      the stack for their return address
    - functions whose first instruction the kernel mistakes for another (see `usdtkit.elf.instructions`)

    NAME@VERSION and NAME@0xADDRESS mean one of several functions of a name.

    A name that is no symbol's is one of C++ or Rust if it contains `::`, `(` or a space. With `in_source`, any name
    without a symbol is looked for as the source has it:

    - a global function of C++
    - all copies that the compiler has made of a function: `helper.lto_priv.0` and `helper.lto_priv.1` if two files have
      a `helper`, `helper.constprop.0` if the compiler has put in an argument that is always the same. Their arguments
      may differ from those in the source.
    - all instances of a generic function of Go: `main.Map[go.shape.int]`
    - a function of C whose parameters are given, which its symbol does not have
    """
    chosen = {pattern: qualified(pattern) for pattern in patterns}
    found = _in_source(image, [pattern for pattern in chosen if chosen[pattern] is None], aliases, in_source)
    for name, qualifier in filter(None, chosen.values()):
        namesakes = _in_source(image, [exact(name)], aliases, in_source)
        found += [function for function in namesakes if is_the_one(function, qualifier)]
    return sorted(dict.fromkeys(found), key=lambda function: (function.address, function.name))


def exported(image: Image, *names: str) -> list[Function]:
    """Return those of `functions` that the dynamic loader sees. A program's exports go before those of libraries."""
    patterns = [exact(name) for name in names]
    defined = functions(image, *patterns)
    table = dynamic_table(image) if defined else None
    if table is None:
        return []
    addresses = {table.values[index] for index in matches(table, patterns) if table[index].is_defined}
    return [function for function in defined if function.address in addresses]


def indirect_functions(image: Image, *patterns: Pattern) -> list[Function]:
    """Return the resolvers of indirect functions that match like `functions`. They are called once, at the start."""
    return _Search(image, patterns, kind=STT_GNU_IFUNC).found()


def function_names(image: Image) -> set[str]:
    """Return the names of functions, as many as can be compared in a moment, in which near ones are looked for."""
    names: set[str] = set()
    for table in all_tables(image):
        for symbol in islice(table, _MOST_NEAR):
            if symbol.is_function and symbol.is_defined and len(name := table.name(symbol.at)) <= _LONGEST_NEAR:
                names.add(name)
    return names


def other_copies(image: Image, found: Sequence[Function]) -> list[str]:
    """Return the names of copies of functions, which some callers call instead, that are not among the functions."""
    own = {function.name for function in found}
    copies = [name for name in _copies(image, own) if _without_copy(name) in own and name not in own]
    return [function.name for function in functions(image, *map(exact, copies))] if copies else []


def cold_parts(image: Image, name: str) -> list[str]:
    """Return the cold parts that a compiler has split off a function, by its name in C or in the symbol table."""
    beginning, parts = f"{name}.", set()
    for table in all_tables(image):
        for index in matches(table, [f"{exact(beginning)}*"]):
            if ".cold" in (part := table.name(table.names[index])):
                parts.add(part)
    return sorted(parts)


def variables(image: Image, *names: str) -> dict[str, int]:
    """Return the virtual addresses of those that the file exports; of a static program, of those that it has."""
    found: dict[str, int] = {}
    table = table_of_exports(image, *names)
    if table is None:
        return found
    for index in matches(table, [exact(name) for name in names]):
        symbol = table[index]
        if symbol.is_defined:
            found.setdefault(table.name(symbol.at), symbol.value)
    return found


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


def _in_source(image: Image, patterns: Sequence[Pattern], aliases: bool, in_source: bool) -> list[Function]:
    """The functions that patterns without an @ mean."""
    search = _Search(image, patterns, aliases=aliases, in_source=in_source)
    if not search.missing or not in_source:
        return search.found()
    # C's parameters are not in the symbol.
    names = search.missing | {name.partition("(")[0] for name in search.missing if _OF_C.fullmatch(name)}
    instead = [exact(name) for name in names - search.missing]
    instead += [exact(name) for name in _copies(image, names)]
    return search.found() + (_Search(image, instead, aliases=aliases).found() if instead else [])


class _Search:
    """One search through the tables of a file. `missing` are the names of which it has found no function."""

    def __init__(
        self,
        image: Image,
        patterns: Sequence[Pattern],
        *,
        kind: int = STT_FUNC,
        aliases: bool = False,
        in_source: bool = False,
    ) -> None:
        self._image, self._kind = image, kind
        self._code = [segment for segment in image.segments if segment.type == PT_LOAD and segment.flags & PF_X]
        self._has_vectors = image.machine in ("x86_64", "i386")
        self._convention = golang.convention(image) or ("i386" if image.machine == "i386" else "")
        self._by_place: dict[tuple[int, str], Function] = {}
        self._by_source: set[tuple[int, str]] = set()
        self._names_at: dict[int, list[str]] | None = {} if aliases else None
        globs = [pattern for pattern in patterns if name_of(pattern) is None]
        names = {name for pattern in patterns if (name := name_of(pattern)) is not None}
        found_in_source: set[str] = set()
        for table in all_tables(image):
            for index in matches(table, patterns):
                if (key := self._add(table, index)) is not None:
                    names.discard(key[1])
            for index, demangled in sourcenames.matching(table, globs):
                self._add(table, index, demangled)
            # A symbol of this very name goes before functions that have the name in the source.
            for index, demangled, name in sourcenames.named(table, names, globals=in_source):
                if (key := self._add(table, index, demangled)) is not None:
                    self._by_source.add(key)
                    found_in_source.add(name)
            if self._names_at is not None:
                _add_names(table, {address for address, _ in self._by_place}, kind, self._names_at)
            elif not globs and not names:
                break
        self.missing = names - found_in_source

    def found(self) -> list[Function]:
        """The functions, by address, without copies of functions that are there as well."""
        symbols = {name for _, name in self._by_place}
        ordered = [
            self._by_place[key]
            for key in sorted(self._by_place)
            if key not in self._by_source or (whole := _without_copy(key[1])) == key[1] or whole not in symbols
        ]
        if self._names_at is None:
            return ordered
        names_at = self._names_at
        return [
            replace(f, aliases=tuple(sorted({name for name in names_at[f.address] if name != f.name}))) for f in ordered
        ]

    def _add(self, table: Table, index: int, demangled: str = "") -> tuple[int, str] | None:
        """Add a symbol, if it is that of a function of the kind that a probe can be put on, and return its key."""
        image, symbol = self._image, table[index]
        offset = next(
            (symbol.value - s.address + s.offset for s in self._code if 0 <= symbol.value - s.address < s.file_size),
            None,
        )
        if symbol.type != self._kind or not symbol.is_defined or offset is None:
            return None
        name, version = table.name(symbol.at), table.version(index)
        known = self._by_place.get((symbol.value, name))
        if known is not None and (known.version or demangled or not version):
            return symbol.value, name
        if offset >= image.size:
            raise ElfError(f"{image.path}: truncated: {name} lies beyond the end of the file")
        if self._has_vectors and not is_safe(image.read(offset, min(LONGEST, image.size - offset)), image.machine):
            return None
        if ".cold" in name:
            return None
        is_assembler = self._convention == "go" and name.endswith(golang.ASSEMBLER)
        convention = "go-stack" if is_assembler else self._convention
        self._by_place[symbol.value, name] = Function(
            image.path,
            name,
            symbol.value,
            symbol.size,
            offset,
            version=version,
            demangled=demangled,
            indirect=self._kind == STT_GNU_IFUNC,
            convention=convention,
            superseded=table.is_superseded(index),
            file=image.file,
        )
        return symbol.value, name


def _without_copy(name: str) -> str:
    """The name of a symbol without what a compiler puts behind that of a copy."""
    return _COPY.sub("", name)


def _copies(image: Image, names: Collection[str]) -> list[str]:
    """The names of the copies that the compiler has made of functions, and of the instances of Go's generic ones."""
    copies: dict[str, None] = {}
    for table in all_tables(image):
        for name in names:
            for separator in (b".", b"["):
                prefix = name.encode("utf-8", "surrogateescape") + separator
                at = table.strings.find(prefix)
                for _ in range(_MOST_NAMESAKES):
                    if at < 0:
                        break
                    copy = table.name(at)
                    if _COPY.fullmatch(copy, len(name)) or _INSTANCE.fullmatch(copy, len(name)):
                        copies[copy] = None
                    at = table.strings.find(prefix, at + len(prefix))
    return list(copies)


def _add_names(table: Table, addresses: set[int], kind: int, names_at: dict[int, list[str]]) -> None:
    for index, value in enumerate(table.values):
        if value in addresses:
            symbol = table[index]
            if symbol.type == kind and symbol.is_defined:
                names_at.setdefault(value, []).append(table.name(symbol.at))
