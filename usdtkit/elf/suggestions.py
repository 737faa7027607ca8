"""A name that no function of a file has → names of functions that may have been meant, as users write them.

Input: open files, and a name or pattern. Output: names for an error message of `usdtkit.targets`. Names in the source
are compared as well, as a whole and by their last part, because a namespace or class is often left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from itertools import islice

from usdtkit.elf import demangle
from usdtkit.elf.image import Image
from usdtkit.elf.matching import likely_offsets
from usdtkit.elf.sourcenames import is_mangled
from usdtkit.elf.tables import all_tables
from usdtkit.errors import UnsupportedError
from usdtkit.naming import exact, spelled

MOST = 3
_MOST_COMPARED = 5000  # comparing is slow
_MOST_READ = 100_000
_SHORTEST = 3
_WORD = re.compile(r"\w+")
_PART = re.compile(r"~?\w+")
_CUTOFF = 0.6


def near(wanted: str, images: Iterable[Image], functions: Set[str]) -> list[str]:
    """Return up to three names that are like `wanted`, the nearest first, in quotes if they need these.

    `functions` are the names of the functions of the open files.
    """
    plain = re.sub(r"[*?\[\]]", "", _short(wanted))
    names = {name for name in functions if is_mangled(wanted) or not is_mangled(name)}
    names.update(name for image in images for name in _in_source(plain, image, functions))
    by_last: dict[str, list[str]] = {}
    for name in sorted(names):
        by_last.setdefault(_last(name), []).append(name)
    found = [name for name in sorted(names) if name.startswith((f"{plain}.", f"{plain}("))]
    found += by_last.get(_last(plain), [])
    found += _alike(plain, names)
    found += [name for last in _alike(_last(plain), by_last) for name in by_last[last]]
    return [spelled(exact(name)) for name in islice(dict.fromkeys(found), MOST)]


def _in_source(plain: str, image: Image, functions: Set[str]) -> Iterator[str]:
    """Names in the source that have half of a word in common with the wanted one; its overloads with parameters."""
    halves = {half for word in _WORD.findall(plain) for half in _halves(word)}
    literals = [half.encode("utf-8", "surrogateescape") for half in halves if len(half) >= _SHORTEST]
    mangled: dict[str, None] = {}
    for table in all_tables(image) if literals else ():
        likely = likely_offsets(table.strings, literals)
        offsets = dict.fromkeys(at for at in table.names if at < len(likely) and likely[at])
        names = map(table.name, islice(offsets, _MOST_READ))
        known = (name for name in names if is_mangled(name) and name in functions)
        mangled.update(dict.fromkeys(islice(known, _MOST_COMPARED)))
    with suppress(UnsupportedError):
        for name in filter(None, demangle.demangle([*mangled])):
            whole = demangle.without_copy(name)
            short = demangle.without_parameters(whole)
            yield whole if short == plain else short


def _halves(word: str) -> tuple[str, str]:
    size = max(len(word) // 2, _SHORTEST)
    return word[:size], word[-size:]


def _short(name: str) -> str:
    """The name without parameters. Parentheses inside of a name of Go hold no parameters."""
    return demangle.without_parameters(name) if "::" in name or name.endswith(")") else name


def _last(name: str) -> str:
    """The last part of a name, without the arguments of a template: `add` of `shop::Cart::add<int>(long)`."""
    parts = _PART.findall(demangle.without_arguments(_short(name)))
    return parts[-1] if parts else name


def _alike(wanted: str, names: Iterable[str]) -> list[str]:
    compared = sorted(names)
    if len(compared) > _MOST_COMPARED:  # a wrong letter is seldom among the first two
        beginning = wanted[:2].lower()
        compared = [name for name in compared if name[:2].lower() == beginning][:_MOST_COMPARED]
    return difflib.get_close_matches(wanted, compared, MOST, _CUTOFF)
