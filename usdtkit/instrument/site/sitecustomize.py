"""Installs the probes that USDTKIT_INSTRUMENT names. Python runs this at its start if this directory is on PYTHONPATH.

Nothing here may keep a program from running, so whatever cannot be installed is reported on standard error. A
sitecustomize that this one hides is run after it. Each import here delays every start of Python: hence os.path, and no
importlib.util.
"""

import os
import sys
from importlib._bootstrap import module_from_spec
from importlib.machinery import PathFinder

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120


def _load(name: str, places: "list[str]") -> None:
    """Import a module from these directories only. Does nothing if none of them has it."""
    spec = PathFinder.find_spec(name, places)
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _install(names: str) -> None:
    try:
        # The package that this file belongs to, even if the service has another copy of it.
        _load("usdtkit", [os.path.abspath(os.path.join(HERE, "..", "..", ".."))])  # noqa: PTH100, PTH118
        from usdtkit.instrument import install_named

        install_named(names)
    except Exception as error:  # noqa: BLE001 the program comes first
        _say(f"usdtkit: not instrumented: {error}")


def _say(message: str) -> None:
    """Write to standard error if there is one. Without it, print would use standard output, which is the program's."""
    if sys.stderr is not None:
        try:
            print(message, file=sys.stderr)
        except (OSError, ValueError):
            return  # there is nowhere to report it


def _is_main_interpreter() -> bool:
    """Return whether this is not a subinterpreter, such as those of an InterpreterPoolExecutor."""
    try:
        import _interpreters  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return True  # before CPython 3.13 nothing in the standard library makes any
    return bool(_interpreters.get_current() == _interpreters.get_main())


if (names := os.environ.get("USDTKIT_INSTRUMENT")) and _is_main_interpreter():
    _install(names)
_load("sitecustomize", [place for place in sys.path if os.path.realpath(place) != HERE])
