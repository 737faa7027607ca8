"""A symbol table and patterns → the symbols whose names match: exact names, globs, regexes, and demangled names.

Input `usdtkit.elf.tables.Table` and `Pattern`s, output indexes of symbols; used by `usdtkit.elf.symbols`. Uses
`usdtkit.elf.demangle`, where a pattern is written as a programmer writes the name. A large program has 150,000 symbols,
and going through all their names takes longer than a tool's start. So names are searched for in the bytes of the string
table, if that is possible, and other patterns are only compared with names that have a part in common with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from usdtkit.elf.image import LONGEST_NAME
from usdtkit.elf.tables import Table

_FEW = 64  # names, each of which is searched for by itself
_SHORTEST_LITERAL = 3  # shorter ones are in most names
_WILDCARDS = frozenset("*?[")
# C++'s mangling, and Rust's older and newer one.
_MANGLED = re.compile(rb"_[ZR]\w")

Pattern = str | re.Pattern[str]
"""A name, a glob (`*`, `?`, `[…]`), or a compiled regex that is searched for. A pattern that contains `::`, `(` or a
space is compared with demangled names, with and without their parameters; a regex only if it contains `::`."""


def is_name(pattern: Pattern) -> bool:
    """Return whether a pattern is a plain name, and neither a glob nor a regex."""
    return isinstance(pattern, str) and _WILDCARDS.isdisjoint(pattern)


def is_demangled(pattern: Pattern) -> bool:
    """Return whether a pattern is compared with demangled names."""
    if not isinstance(pattern, str):
        return "::" in pattern.pattern
    return "::" in pattern or "(" in pattern or " " in pattern


def matches(table: Table, patterns: Sequence[Pattern]) -> Iterator[tuple[int, str]]:
    """Yield (index, demangled name or "") of the symbols that match any of the patterns, whatever their types are."""
    name_offsets: set[int] = set()
    plain: list[Pattern] = []
    demangled: list[Pattern] = []
    for pattern in patterns:
        if is_demangled(pattern):
            demangled.append(pattern)
        elif isinstance(pattern, str) and _WILDCARDS.isdisjoint(pattern):
            name_offsets |= offsets_of(table.strings, pattern.encode("utf-8", "surrogateescape"))
        else:
            plain.append(pattern)
    if name_offsets and not plain and len(name_offsets) <= _FEW:
        yield from ((index, "") for index in sorted(_indexes(table, name_offsets)))
    elif name_offsets or plain:
        match = _matcher(plain)
        likely = _likely(table.strings, [_literal(pattern) for pattern in plain])
        size = len(table.strings)
        for index, at in enumerate(table.names):
            if at in name_offsets or (at < size and likely[at] and match(table.name(at))):
                yield index, ""
    if demangled:
        yield from _demangled(table, demangled)


def offsets_of(strings: bytes, name: bytes) -> set[int]:
    """Return where `name` ends a string of the table or stands before a version. Linkers let a name begin inside a
    longer one, so it need not begin a string."""
    offsets = set()
    at = strings.find(name) if name else -1
    while at >= 0:
        if strings[at + len(name) : at + len(name) + 1] in (b"\0", b"@"):
            offsets.add(at)
        at = strings.find(name, at + 1)
    return offsets


def _indexes(table: Table, name_offsets: set[int]) -> Iterator[int]:
    """The symbols whose names lie at these offsets. The arrays are searched in C."""
    for at in name_offsets:
        index = -1
        with suppress(ValueError):  # there are no more
            while True:
                index = table.names.index(at, index + 1)
                yield index


def _demangled(table: Table, patterns: Sequence[Pattern]) -> Iterator[tuple[int, str]]:
    from usdtkit.elf import demangle  # lazy: it starts a process

    size = len(table.strings)
    for pattern in patterns:
        words = [word.encode() for word in demangle.words(pattern)]
        likely = _likely(table.strings, [min(words, key=table.strings.count, default=b"")])
        candidates = [
            (index, table.name(at))
            for index, at in enumerate(table.names)
            if at < size and likely[at] and _MANGLED.match(table.strings, at) and _has_all(table.strings, at, words)
        ]
        match, match_anywhere = _matcher([pattern]), _matcher([pattern], anywhere=True)
        for (index, _), name in zip(candidates, demangle.demangle([name for _, name in candidates]), strict=True):
            if not name or not match_anywhere(name):
                continue
            # Cutting off the parameters is slow, so it comes last.
            if match(name) or match(plain := demangle.without_copy(name)) or match(demangle.without_parameters(plain)):
                yield index, name


def _has_all(strings: bytes, at: int, words: Sequence[bytes]) -> bool:
    end = strings.find(b"\0", at, at + LONGEST_NAME)
    return all(strings.find(word, at, end) >= 0 for word in words)


def _matcher(patterns: Sequence[Pattern], *, anywhere: bool = False) -> Callable[[str], object]:
    """A function that says whether a name matches any of the patterns; with `anywhere` a glob may match any part."""
    import fnmatch  # lazy: plain names need no globs

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
    """For each offset of the table, non-zero if a name that begins there may match because it has one of the literals.

    Searching the whole table for the literals is far quicker than matching every name.
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
