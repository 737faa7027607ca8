"""A symbol table and patterns → the symbols whose names match: exact names, globs and regexes.

Input `usdtkit.elf.tables.Table` and `Pattern`s, output indexes of symbols; used by `usdtkit.elf.symbols`. In
`usdtkit.elf.sourcenames` are the names that symbols have in the source. A large program has 150,000 symbols, and going
through all their names takes longer than a tool's start. So names are searched for in the bytes of the string table, if
that is possible, and other patterns are only compared with names that have a part in common with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from usdtkit.elf.image import places
from usdtkit.elf.tables import Table
from usdtkit.naming import name_of

_FEW = 64  # names, each of which is searched for by itself
_SHORTEST_LITERAL = 3  # shorter ones are in most names

Pattern = str | re.Pattern[str]
"""An exact name (`usdtkit.naming.exact`), a glob (`*`, `?`, `[…]`), or a compiled regex that is searched for."""


def matches(table: Table, patterns: Sequence[Pattern]) -> Iterator[int]:
    """Yield the indexes of the symbols whose names match any of the patterns, whatever their types are."""
    name_offsets: set[int] = set()
    globs: list[Pattern] = []
    for pattern in patterns:
        name = name_of(pattern)
        if name is None:
            globs.append(pattern)
        else:
            name_offsets |= offsets_of(table.strings, name.encode("utf-8", "surrogateescape"))
    if not globs and len(name_offsets) <= _FEW:
        yield from sorted(indexes_of(table, name_offsets))
        return
    match = matcher(globs)
    likely = likely_offsets(table.strings, [_literal(pattern) for pattern in globs])
    size = len(table.strings)
    for index, at in enumerate(table.names):
        if at in name_offsets or (at < size and likely[at] and match(table.name(at))):
            yield index


def offsets_of(strings: bytes, name: bytes) -> set[int]:
    """Return where `name` ends a string of the table or stands before a version. Linkers let a name begin inside a
    longer one, so it need not begin a string."""
    ends = (name + b"\0", name + b"@") if name else ()
    return {at for text in ends for at in places(strings, text)}


def indexes_of(table: Table, name_offsets: Iterable[int]) -> Iterator[int]:
    """Yield the symbols whose names lie at these offsets."""
    offsets = set(name_offsets)
    if len(offsets) > _FEW:
        yield from (index for index, at in enumerate(table.names) if at in offsets)
        return
    for at in offsets:  # the array is searched in C
        index = -1
        with suppress(ValueError):  # there are no more
            while True:
                index = table.names.index(at, index + 1)
                yield index


def matcher(patterns: Sequence[Pattern], *, anywhere: bool = False) -> Callable[[str], object]:
    """Return a function that says whether a name matches any of the patterns; with `anywhere` a glob may match any
    part."""
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


def likely_offsets(strings: bytes, literals: Sequence[bytes]) -> bytes | bytearray:
    """Return for each offset of the table whether a name that begins there may match: it has one of the literals.

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
