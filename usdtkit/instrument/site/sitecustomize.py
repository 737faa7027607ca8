"""Run by Python at its start where this directory is on PYTHONPATH: installs what USDTKIT_INSTRUMENT names.

Nothing here may keep a program from running: what cannot be installed is said on standard error. A sitecustomize that
this one hides is run after it. Every start of Python pays for what is imported here: so os.path, and no importlib.util.
"""

import os
import sys
from importlib._bootstrap import module_from_spec
from importlib.machinery import PathFinder

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120


def _load(name: str, places: "list[str]") -> None:
    """Import a module from these places alone; nothing where it is in none of them."""
    spec = PathFinder.find_spec(name, places)
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _install(wanted: str) -> None:
    try:
        # The package that this file is part of, wherever the service has its own.
        _load("usdtkit", [os.path.abspath(os.path.join(HERE, "..", "..", ".."))])  # noqa: PTH100, PTH118
        from usdtkit.instrument import install_named

        install_named(wanted)
    except Exception as error:  # noqa: BLE001 the program comes first
        _say(f"usdtkit: not instrumented: {error}")


def _say(message: str) -> None:
    """Write to standard error, if there is one: without, print would take standard output, which is the program's."""
    if sys.stderr is not None:
        try:
            print(message, file=sys.stderr)
        except (OSError, ValueError):
            return  # nobody can be told


if wanted := os.environ.get("USDTKIT_INSTRUMENT"):
    _install(wanted)
_load("sitecustomize", [place for place in sys.path if os.path.realpath(place) != HERE])
