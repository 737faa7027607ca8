"""Ready-made probes for Python services: of the language itself, and of the libraries that services use.

Each module here has a function `install()`, which publishes the probes of one library in this process; `python` has
those of the language. Input: the hooks of these libraries. Output: probes of `usdtkit.probes`, each of which costs one
comparison while nobody traces. `usdtkit.run` and `site/sitecustomize.py` install them by name, so that a program need
not be edited.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from usdtkit.errors import UnsupportedError, UsageError, one_of
from usdtkit.instrument.engagement import not_engaged, say_waiting
from usdtkit.probes.drops import describe, warn

__all__ = ["NAMES", "install_named"]

NAMES = (
    "asgi",
    "asyncio",
    "celery",
    "dbapi",
    "django",
    "executors",
    "gc",
    "grpc",
    "http",
    "locks",
    "logging",
    "python",
    "redis",
    "web",
    "wsgi",
)
"""The modules of this package that have `install()`."""


def install_named(names: str) -> None:
    """Install the probes that USDTKIT_INSTRUMENT lists: names separated by commas, or JSON, {name: options of install}.

    Raises UsageError for an unknown name. Probes that cannot be installed are reported in the log, and the others are
    installed.
    """
    options: dict[str, dict[str, Any]]
    if names.startswith("{"):
        import json  # late, because most starts do not need it

        options = json.loads(names)
    else:
        options = {name.strip(): {} for name in names.split(",")}
    check_names(options)
    for name, keywords in options.items():
        try:
            importlib.import_module(f"usdtkit.instrument.{name}").install(**keywords)
        except Exception as error:  # noqa: BLE001 the program must run, and the others must be installed
            not_engaged(name, f"usdtkit.instrument.{name}", describe(error))
            warn(f"not instrumented: {name}: {describe(error)}")
    say_waiting()


def check_names(names: Any) -> None:
    """Raise UsageError if a name is not one of NAMES."""
    for name in names:
        if name not in NAMES:
            raise UsageError(f"there are no ready-made probes for {name!r}", hint=one_of(name, NAMES))


def check_objects() -> None:
    """Raise UnsupportedError if this interpreter cannot report the creation and deletion of objects."""
    if sys.version_info < (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        raise UnsupportedError(f"CPython {version} does not report objects", hint="CPython 3.13 and later do")
