"""A symbol table and names in the source of C++ and Rust → the symbols that they mean.

Input `usdtkit.elf.tables.Table`, names and patterns, output indexes of symbols, with their names in the source; used by
`usdtkit.elf.symbols`. Uses `usdtkit.elf.demangle` for those symbols alone that may be meant, because their names have
a part of what is searched for.

A name may be given with parameters or without, and without the arguments of templates. It then means all functions of
that name. Of a global function, which has no `::` in its name, the mangled name shows the name by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from usdtkit.elf import demangle
from usdtkit.elf.image import LONGEST_NAME, places
from usdtkit.elf.matching import Pattern, indexes_of, likely_offsets, matcher
from usdtkit.elf.tables import Table
from usdtkit.errors import UnsupportedError

# C++'s mangling, and Rust's older and newer one.
_MANGLED = re.compile(rb"_[ZR]\w")
_GLOBAL = re.compile(rb"_ZL?([1-9][0-9]{0,2})(?=[A-Za-z_])")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_IN_SOURCE = re.compile(r"::|[(< ]|^operator\W")
_LONG = 1024
_SPACE = re.compile(r"(?<!\w) +| +(?!\w)")


def is_mangled(name: str) -> bool:
    """Return whether a symbol's name is one that C++ or Rust has made."""
    return name.startswith(("_Z", "_R"))


def is_in_source(pattern: Pattern) -> bool:
    """Return whether a pattern can be a name in the source that no symbol has. A regex can if it contains `::`."""
    if not isinstance(pattern, str):
        return "::" in pattern.pattern
    return _IN_SOURCE.search(pattern) is not None


def named(table: Table, names: Iterable[str], *, globals: bool = True) -> Iterator[tuple[int, str, str]]:
    """Yield (index, demangled name, name) of the symbols that have one of the names in the source.

    Names of global functions without parameters are only looked for with `globals`. UnsupportedError.
    """
    if not (b"_Z" in table.strings or b"_R" in table.strings):
        return
    of_globals = [name for name in names if globals and _IDENTIFIER.fullmatch(name)]
    for index, demangled in _demangled(table, _global_names(table, of_globals), optional=True):
        if (begin := _GLOBAL.match(table.strings, table.names[index])) is not None:
            name = table.strings[begin.end() : begin.end() + int(begin[1])].decode()
            yield index, demangled, name
    wanted = {_without_spaces(name): name for name in names if is_in_source(name)}
    offsets = {at for name in wanted.values() for at in _with_words(table, demangle.words(name))}
    for index, demangled in _demangled(table, offsets):
        for form in _forms(demangled):
            if (spaceless := _without_spaces(form)) in wanted:
                yield index, demangled, wanted[spaceless]
                break


def matching(table: Table, patterns: Sequence[Pattern]) -> Iterator[tuple[int, str]]:
    """Yield (index, demangled name) of the symbols whose names in the source match a glob or regex. UnsupportedError.

    A glob without `::`, `(`, `<` and spaces is compared with the names of global functions, without parameters.
    """
    if not (b"_Z" in table.strings or b"_R" in table.strings):
        return
    for pattern in patterns:
        if is_in_source(pattern):
            as_compared: Callable[[str], str] = str  # by a regex, a name as it is shown
            if isinstance(pattern, str):
                as_compared, pattern = _without_spaces, _without_spaces(pattern)
                longest = _LONG
            else:  # its $ may be the end of a name without parameters
                longest = 0 if "$" in pattern.pattern else _LONG
            match, match_anywhere = matcher([pattern]), matcher([pattern], anywhere=True)
            for index, name in _demangled(table, _with_words(table, demangle.words(pattern))):
                # A quick look first, because cutting off the parameters is slow. In a long name, it may be slower.
                text = as_compared(name)
                looks = (text, demangle.without_arguments(text)) if len(text) <= longest else ()
                if looks and not any(map(match_anywhere, looks)):
                    continue
                if any(match(as_compared(form)) for form in _forms(name)):
                    yield index, name
        elif isinstance(pattern, str):
            yield from _demangled(table, _matching_globals(table, pattern), optional=True)


def _forms(name: str) -> Iterator[str]:
    """The ways in which a demangled name can be given, the longest first."""
    yield name
    yield (plain := demangle.without_copy(name))
    yield (short := demangle.without_parameters(plain))
    yield demangle.without_arguments(short)


def _without_spaces(name: str) -> str:
    """The name without the spaces that mean nothing, such as that in `char *`."""
    return _SPACE.sub("", name)


def _global_names(table: Table, names: Iterable[str]) -> Iterator[int]:
    """Where the mangled names of global functions of these names begin."""
    for name in names:
        for mangled in (f"_Z{len(name)}{name}".encode(), f"_ZL{len(name)}{name}".encode()):
            yield from places(table.strings, mangled)


def _matching_globals(table: Table, glob: str) -> Iterator[int]:
    """Where the mangled names of global functions begin whose names without parameters match a glob."""
    match = matcher([glob])
    for begin in _GLOBAL.finditer(table.strings):
        name = table.strings[begin.end() : begin.end() + int(begin[1])]
        if match(name.decode("utf-8", "replace")):
            yield begin.start()


def _with_words(table: Table, words: Sequence[str]) -> Iterator[int]:
    """Where the mangled names begin that contain all of these words."""
    strings, encoded = table.strings, [word.encode() for word in words]
    size, likely = len(strings), likely_offsets(strings, [min(encoded, key=strings.count, default=b"")])
    for at in table.names:
        if at < size and likely[at] and _MANGLED.match(strings, at):
            end = strings.find(b"\0", at, at + LONGEST_NAME)
            if all(strings.find(word, at, end) >= 0 for word in encoded):
                yield at


def _demangled(table: Table, offsets: Iterable[int], *, optional: bool = False) -> Iterator[tuple[int, str]]:
    """The symbols whose names begin at these offsets, with their names in the source, if these can be read.

    With `optional` the others come as well, without such names.
    """
    indexes = sorted(indexes_of(table, offsets))
    mangled: dict[int, str] = {}
    left = 4 * len(table.strings)  # in a damaged file, any number of long names can overlap
    for at in dict.fromkeys(table.names[index] for index in indexes):
        mangled[at] = table.name(at)
        left -= len(mangled[at])
        if left < 0:
            break
    names: dict[int, str] = {}
    try:
        names = dict(zip(mangled, demangle.demangle([*mangled.values()]), strict=True))
    except UnsupportedError:
        if not optional:
            raise
    for index in indexes:
        if (name := names.get(table.names[index], "")) or optional:
            yield index, name
