"""What we know of other software: provider or library and name in, argument names and types out.

One module a provider (`PROBES`) or library (`FUNCTIONS`), imported when it is first asked for. Read by
`usdtkit.targets` and the tools. Types are those of `usdtkit.model.Argument`.
"""

from __future__ import annotations

import importlib
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


@lru_cache(maxsize=256)
def _module(name: str) -> ModuleType | None:
    if not _MODULE.fullmatch(name):  # the name comes out of a file
        return None
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:
            raise
        return None
