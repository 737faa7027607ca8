"""Ready-made probes for Python services: the language itself, and the libraries that services are made of.

Each module here has `install()`, which publishes the probes of one thing in this process: `python` those of the
language, the others of asyncio, locks, logging, databases, web servers and clients. Input: hooks of these libraries.
Output: probes of `usdtkit.probes`, at the cost of one comparison each while nobody traces. `usdtkit.run` and
`site/sitecustomize.py` install them by name in programs that are not edited.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from usdtkit.errors import UnsupportedError, UsageError
from usdtkit.probes.drops import describe, warn

__all__ = ["NAMES", "install_named"]

NAMES = ("asyncio", "dbapi", "gc", "http", "locks", "logging", "python", "wsgi", "asgi")
"""The modules of this package that have `install()`."""


def install_named(wanted: str) -> None:
    """Install what USDTKIT_INSTRUMENT says: names with commas between them, or JSON, {name: options of its install}.

    Raises UsageError for an unknown name. What cannot be installed is said in the log, and the others are.
    """
    options: dict[str, dict[str, Any]]
    if wanted.startswith("{"):
        import json  # a start that needs none should not wait for it

        options = json.loads(wanted)
    else:
        options = {name.strip(): {} for name in wanted.split(",")}
    check_names(options)
    for name, more in options.items():
        try:
            importlib.import_module(f"usdtkit.instrument.{name}").install(**more)
        except Exception as error:  # noqa: BLE001 whatever one of them lacks, the program and the others go on
            warn(f"not instrumented: {name}: {describe(error)}")


def check_names(names: Any) -> None:
    """Raise UsageError where a name is none of NAMES."""
    for name in names:
        if name not in NAMES:
            raise UsageError(f"there are no ready-made probes for {name!r}", hint=f"one of {', '.join(NAMES)}")


def check_objects() -> None:
    """Raise UnsupportedError where this interpreter does not tell of objects."""
    if sys.version_info < (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        raise UnsupportedError(f"CPython {version} does not tell of objects", hint="CPython 3.13 and later do")
