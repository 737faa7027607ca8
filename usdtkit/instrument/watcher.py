"""Sets hooks when a tracer comes, and removes them when it goes. Every module of this package is switched by it.

Input: the sites of loaded probes, which a thread of `usdtkit._python` compares every 50 ms without the GIL. Output:
calls of the switches in that thread, when a change concerns them. So the modules cost nothing while nobody traces.
While `usdtkit.testing` records, all of them are set but those of the language, whose probes fire without Python.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Protocol

from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.probes import image, registry
from usdtkit.probes.compiled import tell_hooks
from usdtkit.probes.drops import describe, warn
from usdtkit.probes.namesakes import has_given_way
from usdtkit.probes.provider import Probe, is_recorded

try:
    from usdtkit import _python as native
except ImportError as error:
    raise UnsupportedError(
        f"this Python has no usdtkit._python: {error}", hint="install usdtkit on Linux, for this very interpreter"
    ) from error


__all__ = ["Settable", "Switch", "add", "native", "replaced", "tell", "traced", "watch"]


class Settable(Protocol):
    """Has hooks that depend on which probes are traced."""

    def set(self, names: Set[str], /) -> None:
        """Set the hooks for these probes, which are traced, and remove all others."""


class Switch:
    """One hook. Calls turn(True) when the first of its probes is traced, and turn(False) when none is any more."""

    def __init__(self, probes: Set[str], turn: Callable[[bool], object]) -> None:
        self._probes = probes
        self._turn = turn
        self._on = False

    def set(self, names: Set[str], /) -> None:
        """Call `turn` if there is a change."""
        on = not self._probes.isdisjoint(names)
        if on != self._on:
            self._turn(on)
            self._on = on


LANGUAGE = "python"  # the provider of the probes in native.PROBES, which are named without it
_names: list[str] = list(native.PROBES)
_switches: list[Settable] = []
_called: dict[str, Probe[...]] = {}  # by hooks, by the names that `_named` gives
# The probes that can be recorded, and whether they are now.
_recordable: set[str] = set()
_recording = False
_lock = threading.RLock()  # one thread at a time calls switches


def add(switch: Settable) -> None:
    """Call this switch from now on. The first one starts the watcher."""
    with _lock:
        _switches.append(switch)
        if _recording:
            switch.set(_recorded())
    if len(_switches) > 1:
        native.recheck()  # its probes may be traced already
        return
    native.start(_switch)
    os.register_at_fork(
        before=native.stop,
        after_in_parent=native.after_fork_in_parent,
        after_in_child=native.after_fork_in_child,
    )
    # Registered early, so it runs late. After it the interpreter shuts down, and no switch may be called.
    atexit.register(native.stop)


def watch(turn: Callable[[bool], object], *probes: Probe[...]) -> None:
    """Call turn(True) when somebody traces any of these loaded probes, and turn(False) when nobody does any more.

    If somebody does already, as when a command is traced from its start, it is called before this returns.
    Probes whose file could not be loaded are silent, and never traced. Raises UsdtkitError.
    """
    names = {f"{probe.provider}:{probe.name}": probe for probe in probes}
    _recordable.update(names)
    for name, probe in names.items():
        if name in _names or probe.path is None:
            continue
        try:
            native.watch(str(probe.path), image.symbol_name(probe.provider, probe.name), probe.pristine)
        except (OSError, ValueError) as error:
            raise UsdtkitError(f"{name} cannot be watched: {error}") from error
        _names.append(name)
    switch = Switch(names.keys(), turn)
    enabled = {name for name, probe in names.items() if probe.enabled and not has_given_way(probe.provider)}
    switch.set(enabled)
    tell(names, enabled)
    add(switch)


def tell(probes: Mapping[str, Probe[...]], hooked: Set[str]) -> None:
    """Say in the report of this process that hooks are set for those of these probes that are in `hooked`, and keep it
    up to date from now on. Their names are as in `traced`."""
    _called.update(probes)
    for name, probe in probes.items():
        tell_hooks(probe, name in hooked)


def traced(among: Iterable[str]) -> frozenset[str]:
    """Return those of these probes that hooks are set for."""
    return frozenset(among) & _named(native.applied())


def replaced(place: Any, name: str, make: Callable[[Any], Any]) -> Callable[[bool], None]:
    """Return a function `turn` that replaces an attribute by make(original), or restores the original.

    `place` is a module, or the class that defines the attribute, which may be written in C. A class method stays one.
    An attribute that other code has replaced since then is not changed.
    """
    replacements: list[tuple[Any, Any]] = []

    def turn(on: bool) -> None:
        if on:
            original = vars(place)[name]
            by_class = isinstance(original, classmethod)
            replacement = classmethod(make(original.__func__)) if by_class else make(original)
            replacements.append((original, replacement))
            _set(place, name, replacement)
        elif replacements:
            original, replacement = replacements.pop()
            if vars(place).get(name) is replacement:
                _set(place, name, original)

    return turn


def _set(place: Any, name: str, value: object) -> None:
    if isinstance(place, type):
        native.set_attribute(place, name, value)
    else:
        setattr(place, name, value)


def _named(bits: int) -> frozenset[str]:
    """Return the names of the probes with these bits, except those that have given way to probes of the program."""
    return frozenset(
        name for number, name in enumerate(_names) if bits >> number & 1 and not has_given_way(_provider_of(name))
    )


def _provider_of(name: str) -> str:
    return name.partition(":")[0] if ":" in name else LANGUAGE


def _switch(traced_bits: int) -> None:
    """Call all switches. Runs in the watcher's thread when the traced probes have changed; each has one bit."""
    with _lock:
        names = _named(traced_bits) | _recorded()
        for switch in list(_switches):
            try:
                switch.set(names)
            except Exception as error:  # noqa: BLE001 a failure with one library must not affect the others
                warn(f"some of {', '.join(sorted(names))} cannot be switched: {describe(error)}")
        tell(_called, names)


def _recorded() -> frozenset[str]:
    if not _recording:
        return frozenset()
    return frozenset(name for name in _recordable if not has_given_way(_provider_of(name)))


def _record(on: bool) -> None:
    """Set the hooks at once, in the thread that begins or ends a recording."""
    global _recording
    with _lock:
        _recording = on
        if _switches:
            _switch(native.applied())


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread, which the child does not have, may have held it


registry.recording_listeners.append(_record)
os.register_at_fork(after_in_child=_renew_lock)
if is_recorded():
    _record(True)
