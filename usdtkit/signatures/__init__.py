"""What we know of other software: provider or library and name in, argument names and types out.

One module a provider (`PROBES`) or library (`FUNCTIONS`), imported when it is first asked for. Read by
`usdtkit.targets` and the tools. Types are those of `usdtkit.model.Argument`.
"""

# ruff: noqa: PTH208

from __future__ import annotations

import importlib
import os
import re
from functools import lru_cache
from types import ModuleType

from usdtkit.libraries import library_name

Pairs = tuple[tuple[str, str], ...]
"""(name, type) of each argument."""

_MODULE = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def known_arguments(provider: str, probe: str) -> Pairs | None:
    """Arguments of a USDT probe of a well-known provider; None where we do not know it."""
    module = _module(provider)
    probes: dict[str, Pairs] = getattr(module, "PROBES", {})
    return probes.get(probe)


def known_function(library: str, function: str) -> Pairs | None:
    """The leading arguments of a function; `library` is a path, a file name or a short name ("c")."""
    short = library_name(library)
    for module in (_module(f"lib{short}"), _module(short)):
        functions: dict[str, dict[str, Pairs]] = getattr(module, "FUNCTIONS", {})
        if pairs := functions.get(short, {}).get(function):
            return pairs
    return None


def returns_only(library: str, function: str) -> bool:
    """Whether a function of a library, given as for `known_function`, is known to be left by its return and by nothing
    else: no exception, cancellation or switch of stacks comes out of it."""
    short = library_name(library)
    return any(function in getattr(module, "RETURNS_ONLY", ()) for module in (_module(f"lib{short}"), _module(short)))


def knows_library(name: str) -> bool:
    """Whether functions of a library of this short name are known."""
    return any(name in getattr(module, "FUNCTIONS", {}) for module in (_module(f"lib{name}"), _module(name)))


@lru_cache(maxsize=256)
def _module(name: str) -> ModuleType | None:
    # The name comes out of a file, which may have thousands of them: asking the import system costs more than looking.
    if not _MODULE.fullmatch(name) or name not in _modules():
        return None
    return importlib.import_module(f"{__name__}.{name}")


@lru_cache(maxsize=1)
def _modules() -> frozenset[str]:
    return frozenset(name.partition(".")[0] for directory in __path__ for name in os.listdir(directory))
