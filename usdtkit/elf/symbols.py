"""An open ELF file → the functions that uprobes can be put on, by name, glob or regex; symbol addresses for operands.

Input `usdtkit.elf.image.Image`, output `usdtkit.model.Function`; used by `usdtkit.targets` and `usdtkit.elf.notes`.
Stands on `usdtkit.elf.tables`, and on `usdtkit.elf.demangle` where a pattern names a function as its programmer did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from usdtkit.elf.constants import PF_X, PT_LOAD, STT_FUNC, STT_GNU_IFUNC
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import LONGEST_NAME, Image
from usdtkit.elf.instructions import LONGEST, is_safe
from usdtkit.elf.tables import Table, all_tables, tables
from usdtkit.model import Function
from usdtkit.records import replace

_FEW = 64  # names, each of which is searched for by itself
_SHORTEST_LITERAL = 3  # shorter ones are in most names
_MOST_NEAR, _LONGEST_NEAR = 200_000, 256
_MOST_NAMESAKES, _MOST_EFFORT = 256, 1 << 30  # symbols; bytes gone through
_IS_GLOB = re.compile(r"[*?\[]")
# What compilers put behind the name of a function of which they make a changed copy (its arguments are others then), or
# that several files have of which they make one. Each is called like any other function; a .cold part is not.
_COPY = re.compile(rb"(?:\.(?:constprop|isra|part|lto_priv|llvm|specialized|__uniq)\.[0-9]+)+")
# C++'s mangling, and Rust's older and newer one.
_MANGLED = re.compile(rb"_[ZR]\w")

Pattern = str | re.Pattern[str]
"""A name, a glob (`*`, `?`, `[…]`), or a compiled regex that is searched for. One that contains `::`, `(` or a space is
compared with demangled names, with and without their parameters; a regex with `::` also."""


def functions(image: Image, *patterns: Pattern, aliases: bool = False, copies: bool = False) -> list[Function]:
    """The functions whose symbol has one of these names, or matches one of these patterns, by address.

    The symbol tables are searched, and where the file was stripped also those of its debug data, if the file itself
    does not answer. Each (address, name) is given once; with `aliases` with its other names. Left out are symbols not
    defined here; indirect functions, whose symbol is that of their resolver; the cold parts that compilers split off:
    they are jumped to, and a return probe would take what lies on the stack for their return address; and functions
    whose first instruction the kernel mistakes for another (see `usdtkit.elf.instructions`).

    With `copies`, a name of which there is no symbol means the copies that the compiler has made of that function in
    its place: `helper.lto_priv.0` and `helper.lto_priv.1` where two files have a `helper`, `helper.constprop.0` where
    the compiler has put in an argument that is always the same. Their arguments may be others than the source's.
    """
    found = _functions(image, patterns, STT_FUNC, aliases)
    if copies and (names := _without_symbol(patterns, found)) and (made := _copies(image, names)):
        return _functions(image, [*patterns, *made], STT_FUNC, aliases)
    return found


def exported(image: Image, *names: str) -> list[Function]:
    """Of `functions` those that the dynamic loader sees: what a program exports goes before what its libraries have."""
    found = functions(image, *names)
    if not found:
        return found
    dynamic = [table for table in tables(image) if table.is_dynamic]
    there = {table.values[at] for table in dynamic for at, _ in _matches(table, names) if table[at].is_defined}
    return [function for function in found if function.address in there]


def indirect_functions(image: Image, *patterns: Pattern) -> list[Function]:
    """As `functions`, but the resolvers of indirect functions: called once at start, never again."""
    return _functions(image, patterns, STT_GNU_IFUNC, False)


def function_names(image: Image) -> set[str]:
    """The names of functions, as many as can be compared in a moment, to find near ones."""
    found: set[str] = set()
    for table in all_tables(image):
        for symbol in islice(table, _MOST_NEAR):
            if symbol.is_function and symbol.is_defined and len(name := table.name(symbol.at)) <= _LONGEST_NEAR:
                found.add(name)
    return found


class Addresses:
    """Where the functions and variables of a file are, looked up name by name, for operands that spell them."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._tables: list[Table] | None = None
        self._known: dict[str, int | None] = {}
        self._effort = _MOST_EFFORT

    def find(self, name: str) -> int | None:
        """The virtual address of a defined function or variable; None where there is none, or several of one name."""
        if name not in self._known:
            if self._tables is None:
                self._tables = list(all_tables(self._image))
            found = {value for table in self._tables for value in self._in(table, name)}
            self._known[name] = found.pop() if len(found) == 1 else None
        return self._known[name]

    def _in(self, table: Table, name: str) -> Iterator[int]:
        """The table is searched through for every name. There are few; where there are many, the last are not found."""
        self._effort -= len(table.strings) + 4 * len(table.names)
        if self._effort < 0:
            return
        for at in islice(_offsets(table.strings, name.encode("utf-8", "surrogateescape")), _MOST_NAMESAKES):
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
    code = [s for s in image.segments if s.type == PT_LOAD and s.flags & PF_X]
    found: dict[tuple[int, str], Function] = {}
    others: dict[int, list[str]] = {}
    wanted = {pattern for pattern in patterns if isinstance(pattern, str) and not _IS_GLOB.search(pattern)}
    vector = image.machine in ("x86_64", "i386")
    convention = "go" if is_go(image) else "i386" if image.machine == "i386" else ""
    only_names = len(wanted) == len(patterns)
    for table in all_tables(image):
        for index, demangled in _matches(table, patterns):
            symbol = table[index]
            offset = next(
                (symbol.value - s.address + s.offset for s in code if 0 <= symbol.value - s.address < s.file_size), None
            )
            if symbol.type != kind or not symbol.is_defined or offset is None:
                continue
            if vector and not is_safe(image.read(offset, min(LONGEST, image.size - offset)), image.machine):
                continue
            name = table.name(symbol.at)
            key = symbol.value, name
            if ".cold" in name or (key in found and found[key].version):
                continue
            found[key] = Function(
                image.path,
                name,
                symbol.value,
                symbol.size,
                offset,
                version=table.version(index),
                demangled=demangled,
                indirect=kind == STT_GNU_IFUNC,
                convention=convention,
                file=image.file,
            )
            wanted.discard(name)
        if aliases:
            _add_names(table, {address for address, _ in found}, kind, others)
        if only_names and not wanted and not aliases:
            break
    ordered = [found[key] for key in sorted(found)]
    if not aliases:
        return ordered
    return [replace(f, aliases=tuple(sorted({name for name in others[f.address] if name != f.name}))) for f in ordered]


def _without_symbol(patterns: Sequence[Pattern], found: Sequence[Function]) -> list[str]:
    """The patterns that are names as the symbol table has them, without those that were found."""
    names = {function.name for function in found}
    return [
        pattern
        for pattern in patterns
        if isinstance(pattern, str)
        and pattern not in names
        and not _IS_GLOB.search(pattern)
        and not {":", "(", " "} & set(pattern)
    ]


def _copies(image: Image, names: Sequence[str]) -> list[str]:
    """The names of the copies that the compiler has made of functions."""
    found: dict[str, None] = {}
    for table in all_tables(image):
        for name in names:
            wanted = name.encode("utf-8", "surrogateescape") + b"."
            at = table.strings.find(wanted)
            for _ in range(_MOST_NAMESAKES):
                if at < 0:
                    break
                copy = table.name(at)
                if _COPY.fullmatch(copy.encode("utf-8", "surrogateescape")[len(wanted) - 1 :]):
                    found[copy] = None
                at = table.strings.find(wanted, at + len(wanted))
    return list(found)


def _add_names(table: Table, addresses: set[int], kind: int, names: dict[int, list[str]]) -> None:
    for index, value in enumerate(table.values):
        if value in addresses:
            symbol = table[index]
            if symbol.type == kind and symbol.is_defined:
                names.setdefault(value, []).append(table.name(symbol.at))


def _matches(table: Table, patterns: Sequence[Pattern]) -> Iterator[tuple[int, str]]:
    """(index, demangled name or "") of the symbols that match, whatever their kind."""
    exact: set[int] = set()
    plain: list[Pattern] = []
    demangled: list[Pattern] = []
    for pattern in patterns:
        text = pattern if isinstance(pattern, str) else pattern.pattern
        if "::" in text or (isinstance(pattern, str) and ("(" in text or " " in text)):
            demangled.append(pattern)
        elif isinstance(pattern, str) and not _IS_GLOB.search(pattern):
            exact |= _offsets(table.strings, pattern.encode("utf-8", "surrogateescape"))
        else:
            plain.append(pattern)
    if exact and not plain and len(exact) <= _FEW:
        yield from ((index, "") for index in sorted(_indexes(table, exact)))
    elif exact or plain:
        match = _matcher(plain)
        likely = _likely(table.strings, [_literal(pattern) for pattern in plain])
        size = len(table.strings)
        for index, at in enumerate(table.names):
            if at in exact or (at < size and likely[at] and match(table.name(at))):
                yield index, ""
    if demangled:
        yield from _demangled(table, demangled)


def _indexes(table: Table, names: set[int]) -> Iterator[int]:
    """The symbols whose names lie at these offsets, found without going through all of them here."""
    for at in names:
        index = -1
        with suppress(ValueError):  # there is no further one
            while True:
                index = table.names.index(at, index + 1)
                yield index


def _demangled(table: Table, patterns: Sequence[Pattern]) -> Iterator[tuple[int, str]]:
    from usdtkit.elf import demangle  # starts a process

    size = len(table.strings)
    for pattern in patterns:
        words = [word.encode() for word in demangle.words(pattern)]
        likely = _likely(table.strings, [min(words, key=table.strings.count, default=b"")])
        candidates = [
            (index, table.name(at))
            for index, at in enumerate(table.names)
            if at < size and likely[at] and _MANGLED.match(table.strings, at) and _has(table.strings, at, words)
        ]
        match, inside = _matcher([pattern]), _matcher([pattern], anywhere=True)
        for (index, _), name in zip(candidates, demangle.demangle([name for _, name in candidates]), strict=True):
            # the last of the three is the slow one
            if (
                name
                and inside(name)
                and (
                    match(name)
                    or match(plain := demangle.without_copy(name))
                    or match(demangle.without_parameters(plain))
                )
            ):
                yield index, name


def _has(strings: bytes, at: int, words: Sequence[bytes]) -> bool:
    end = strings.find(b"\0", at, at + LONGEST_NAME)
    return all(strings.find(word, at, end) >= 0 for word in words)


def _matcher(patterns: Sequence[Pattern], *, anywhere: bool = False) -> Callable[[str], object]:
    """A function that says whether a name matches any of them, or `anywhere` in it a glob does."""
    import fnmatch

    globs = [fnmatch.translate(pattern) for pattern in patterns if isinstance(pattern, str)]
    if anywhere:
        globs = [glob.removesuffix(r"\Z").removesuffix(r"\z") for glob in globs]
    together = re.compile("|".join(globs))
    searches = [together.search if anywhere else together.match] if globs else []
    searches += [pattern.search for pattern in patterns if not isinstance(pattern, str)]
    return searches[0] if len(searches) == 1 else lambda name: any(search(name) for search in searches)


def _literal(pattern: Pattern) -> bytes:
    """The longest text that every match of a glob contains; none for a regex."""
    if not isinstance(pattern, str):
        return b""
    parts = pattern.partition("[")[0].replace("?", "*").split("*")
    return max(parts, key=len).encode("utf-8", "surrogateescape")


def _likely(strings: bytes, literals: Sequence[bytes]) -> bytes | bytearray:
    """For each offset of the table, non-zero if a name that begins there may match: it has one of the literals.

    Searching the whole table for that is far quicker than matching every name.
    """
    if any(len(literal) < _SHORTEST_LITERAL for literal in literals):
        return b"\1" * len(strings)
    marks = bytearray(len(strings))
    for literal in literals:
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
