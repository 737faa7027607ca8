"""Calls a function when a module has been imported: at once if it is there already, else after its import.

Input: the name of a module, and a function that wraps what is to have probes in it and returns the names of that. Used
for libraries that a service may import later, or not at all. Output: `engagement` knows what was wrapped, or why not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from usdtkit.instrument.engagement import engaged, not_engaged, waits
from usdtkit.probes.drops import describe, warn

Wrap = Callable[[ModuleType], Iterable[str]]

_waiting: dict[str, list[tuple[str, Wrap]]] = {}


def when_imported(integration: str, name: str, wrap: Wrap) -> None:
    """Call wrap(module) as soon as the module has been imported, and record the names that it returns as wrapped.

    What `wrap` raises is recorded and written to the application's log, and nobody else sees it: an unknown version of
    a library must stay usable.
    """
    module = sys.modules.get(name)
    if module is not None:
        _apply(integration, name, wrap, module)
        return
    if not _waiting:
        sys.meta_path.insert(0, _Finder())
    _waiting.setdefault(name, []).append((integration, wrap))
    waits(integration, name)


def _apply(integration: str, name: str, wrap: Wrap, module: ModuleType) -> None:
    try:
        engaged(integration, name, wrap(module))
    except Exception as error:  # noqa: BLE001 an unknown version of the library must still be importable
        _refuse(integration, name, error)


def _refuse(integration: str, name: str, error: BaseException) -> None:
    not_engaged(integration, name, describe(error))
    warn(f"not instrumented: {name}: {describe(error)}")


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
        for integration, wrap in _waiting.pop(name, ()):
            _apply(integration, name, wrap, module)

    try:
        loader.exec_module = exec_module  # type: ignore[method-assign]
    except (AttributeError, TypeError) as error:  # its attributes cannot be set
        for integration, _ in _waiting.get(name, ()):
            _refuse(integration, name, error)
