"""What completes a word that depends on this machine: names of processes, of places to trace, and of functions.

Input: the beginning of a word, and what it may name. Output: whole words, in the order of the alphabet. A shell asks at
each TAB, so as little as possible is imported and read. A shell would also run what a hostile name spells. So a name
that has any other character than those that no shell interprets is not offered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from usdtkit.errors import UsdtkitError
from usdtkit.libraries import beginning_with, installed
from usdtkit.processes import names_of, programs, running_pids

PLAIN = re.compile(r"(?!-)[\w.:@%+,/=-]+", re.ASCII)
MOST_OFFERED = 10_000
# For so long the notes of what runs are read.
SEARCH_S = 0.04
# A beginning of so few characters is compared with all names of a file, and a longer one is searched for.
SHORT = 2


def offers(kind: str, word: str) -> list[str]:
    """The words of a kind, one of KINDS, that begin so."""
    try:
        found = sorted({each for each in KINDS[kind](word) if each.startswith(word) and PLAIN.fullmatch(each)})
    except UsdtkitError:
        return []
    return found[:MOST_OFFERED]


def _processes(word: str) -> Iterator[str]:
    """Numbers and names of processes, of which the last one of several is completed."""
    before, comma, last = word.rpartition(",")
    for pid in running_pids():
        for name in [str(pid)] if last.isdecimal() else names_of(pid):
            yield f"{before}{comma}{name}"


def _places(word: str) -> Iterator[str]:
    """Probes, and functions of libraries and programs, as the tools for any function or probe take them."""
    kind, colon, rest = word.partition(":")
    lead = f"{kind}:" if colon and kind in ("", "p", "r", "u") else ""
    where, colon, name = (rest if lead else word).partition(":")
    if not colon:
        names = _files(where) if lead else [*_files(where), *(spec.partition(":")[0] for spec in _probes(where))]
        yield from (f"{lead}{each}:" for each in names)
    elif not where:
        yield from (f"{lead}:{spec}" for spec in _probes(name))
    elif lead == "u:":
        yield from (f"{lead}{where}:{spec}" for spec in _probes(name, where))
    else:
        with suppress(UsdtkitError):
            yield from (f"{lead}{where}:{each}" for each in _functions(where, name))
        if not lead and not installed(where):  # a provider may be called as a program is
            yield from _probes(word)


def _files(beginning: str) -> Iterable[str]:
    """Short names of libraries, and the names of programs that run."""
    return {*beginning_with(beginning), *programs()}


def _functions(library: str, beginning: str) -> Iterator[str]:
    """The functions of a library or program that begin so: those of C++ and Rust without their parameters."""
    from usdtkit import targets
    from usdtkit.elf import symbols

    for target in targets.resolve(library):
        for image in targets.images(target):
            if len(beginning) <= SHORT:
                yield from symbols.function_names(image)
                continue
            for function in symbols.functions(image, f"{beginning}*", aliases=True):
                yield _without_parameters(function.demangled) if function.demangled else function.name


def _without_parameters(name: str) -> str:
    from usdtkit.elf.demangle import without_parameters  # it imports what starts processes

    return without_parameters(name)


def _probes(beginning: str, path: str | None = None) -> Iterator[str]:
    """PROVIDER:PROBE of what begins so, in a file, else in provider files and all that runs, as far as time allows."""
    from usdtkit import targets
    from usdtkit.elf.notes import names_of_probes

    until = time.monotonic() + SEARCH_S
    for target in targets.everything(quiet=True) if path is None else targets.resolve(path):
        try:
            for image in targets.images(target):
                yield from (spec for spec in names_of_probes(image) if spec.startswith(beginning))
        except UsdtkitError:
            continue
        if path is None and time.monotonic() > until:
            return


KINDS: dict[str, Callable[[str], Iterable[str]]] = {
    "process": _processes,
    "place": _places,
    "function": lambda word: _functions("c", word),
}
