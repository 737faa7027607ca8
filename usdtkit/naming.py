"""Names of functions among patterns: exact names, names in quotes, and what tells functions of one name apart.

Input: names, and functions of a file. Output: patterns, as `usdtkit.elf.matching` takes them, and text, as
`usdtkit.language` takes it. A name of Go or C++ may contain what is a wildcard in a glob, as main.(*Shop).Sell does.
An exact name is therefore a glob in which each wildcard is in brackets, as the standard library's `glob.escape` has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from usdtkit.model import Function

_WILDCARD = re.compile(r"[*?[]")
_BRACKETED = re.compile(r"\[([*?[])\]")
# What the language takes for a part of a name wherever it stands.
_NEEDS_NO_QUOTES = re.compile(r"[\w.$@%/~-]+(?:::[\w.$@%/~-]+)*")
_DIVIDES_NOTHING = re.compile(r'[^ :"(#;]+')
# One of several functions of a name: by its version, or by its address.
_QUALIFIED = re.compile(r"(.+?)@{1,2}(0x[0-9a-f]{1,16}|[A-Za-z_][\w.]*)", re.DOTALL)


def exact(name: str) -> str:
    """Return the glob that this name alone matches."""
    return _WILDCARD.sub(r"[\g<0>]", name)


def name_of(pattern: str | re.Pattern[str]) -> str | None:
    """Return the one name that a pattern stands for; None for a glob that may match several, and for a regex."""
    if not isinstance(pattern, str) or _WILDCARD.search(_BRACKETED.sub("", pattern)):
        return None
    return _BRACKETED.sub(r"\1", pattern)


def quoted(name: str) -> str:
    """Return a name in quotes, with the escapes of a string of the language for all that is not printable."""
    return f'"{"".join(map(_in_quotes, name))}"'


def spelled(pattern: str) -> str:
    """Return a pattern as a user writes it: an exact name in quotes if it needs them, and a glob as it is."""
    name = name_of(pattern)
    if name is None:
        return pattern
    return name if _NEEDS_NO_QUOTES.fullmatch(name) else quoted(name)


def spelled_path(path: str) -> str:
    """Return a path, or another name of a file, as it stands in a target: in quotes if it has spaces, colons, or
    what a label begins with."""
    return path if path.isprintable() and _DIVIDES_NOTHING.fullmatch(path) else quoted(path)


def qualified(pattern: str | re.Pattern[str]) -> tuple[str, str] | None:
    """Return the name and what follows its @ in NAME@VERSION or NAME@0xADDRESS; None for any other pattern."""
    match = _QUALIFIED.fullmatch(name_of(pattern) or "")
    return None if match is None else (match[1], match[2])


def is_the_one(function: Function, qualifier: str) -> bool:
    """Return whether a function has this version, or this address."""
    return qualifier == function.version or qualifier == f"{function.address:#x}"


def apart(
    functions: Sequence[Function],
    names: Sequence[str],
    patterns: Sequence[str | re.Pattern[str]],
    *,
    current: bool = False,
) -> list[str]:
    """Return the names of functions so that each means one of them: `names`, where there are namesakes with an @.

    Behind it stands the version of the symbol, or if that does not tell or is not a word, the address:
    realpath@GLIBC_2.3, helper@0x1139. `patterns` are what the functions were found by: one that was asked for in this
    way keeps its name. With `current`, so does a function that alone has the version which programs are linked to.
    """
    asked = [*filter(None, map(qualified, patterns))]
    grouped: dict[tuple[object, str], dict[int, Function]] = {}
    for function, name in zip(functions, names, strict=True):
        grouped.setdefault((function.file or function.path, name), {})[function.address] = function
    namesakes = {key: _Namesakes(same.values()) for key, same in grouped.items()}

    def qualifier(function: Function, name: str) -> str:
        same = namesakes[function.file or function.path, name]
        for of, qualifier in asked:
            is_asked = of in (name, function.name, function.demangled) and is_the_one(function, qualifier)
            if is_asked and same.versions[qualifier] <= 1:
                return qualifier
        if same.count == 1 or (current and function.version and same.latest == [function.address]):
            return ""
        version = function.version if same.versions[function.version] == 1 else ""
        is_taken = qualified(exact(f"{name}@{version}")) == (name, version)
        return version if is_taken else f"{function.address:#x}"

    qualifiers = map(qualifier, functions, names)
    return [f"{name}@{behind}" if behind else name for name, behind in zip(names, qualifiers, strict=True)]


class _Namesakes:
    """The functions of one name in a file: how many there are, how many of them have each version, and the addresses of
    those whose version is not an old one."""

    def __init__(self, functions: Collection[Function]) -> None:
        self.count = len(functions)
        self.versions = Counter(function.version for function in functions)
        self.latest = [function.address for function in functions if not function.superseded]


def _in_quotes(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    # In octal, which ends after three digits.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
