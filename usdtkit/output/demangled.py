"""Mangled names of functions → the names that their programmers wrote.

Used by `frames`, for the labels of stacks. Demangling starts a process with little memory (`usdtkit.elf.demangle`), so
names are demangled in batches, and the results are kept. Without pycxxfilt names stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from usdtkit.errors import UnsupportedError

MOST_NAMES = 1 << 16
_MANGLED = ("_Z", "_R")
_known: dict[str, str] = {}


def learn(names: Iterable[str]) -> None:
    """Demangle those that are mangled and not yet known, all at once."""
    mangled = list(dict.fromkeys(name for name in names if name.startswith(_MANGLED) and name not in _known))
    if not mangled:
        return
    if len(_known) + len(mangled) > MOST_NAMES:
        _known.clear()
    from usdtkit.elf.demangle import demangle  # lazy: it starts processes, which few outputs need

    try:
        demangled = demangle(mangled)
    except UnsupportedError:
        demangled = [""] * len(mangled)
    _known.update({name: plain or name for name, plain in zip(mangled, demangled, strict=True)})


def plain(name: str) -> str:
    """A name as its programmer wrote it, if `learn` has seen it and it is mangled."""
    return _known.get(name, name)
