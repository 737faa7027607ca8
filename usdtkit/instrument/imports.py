"""Calls a function when a module has been imported: at once if it is there already, else after its import.

Input: the name of a module, and a function that instruments it. Used for libraries that a service may import later, or
not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from usdtkit.probes.drops import describe, warn

Callback = Callable[[ModuleType], object]

_waiting: dict[str, list[Callback]] = {}


def when_imported(name: str, callback: Callback) -> None:
    """Call callback(module) as soon as the module has been imported."""
    module = sys.modules.get(name)
    if module is not None:
        callback(module)
        return
    if not _waiting:
        sys.meta_path.insert(0, _Finder())
    _waiting.setdefault(name, []).append(callback)


class _Finder:
    """Finds a module that is waited for by the other finders, and makes its loader call the callbacks."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            find = (
                None if finder is self else getattr(finder, "find_spec", None)
            )  # finders for older versions of Python have another method
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                _announce(name, spec)
                return spec
        return None


def _announce(name: str, spec: ModuleSpec) -> None:
    loader = spec.loader
    execute = getattr(loader, "exec_module", None)
    if loader is None or execute is None:
        return

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if module.__name__ != name:
            return  # several modules may share one loader
        for callback in _waiting.pop(name, ()):
            try:
                callback(module)
            except Exception as error:  # noqa: BLE001 an unknown version of the library must still be importable
                warn(f"not instrumented: {name}: {describe(error)}")

    try:
        loader.exec_module = exec_module  # type: ignore[method-assign]
    except (AttributeError, TypeError) as error:  # its attributes cannot be set
        warn(f"not instrumented: {name}: {describe(error)}")
