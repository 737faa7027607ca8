"""Tracers come and go → hooks are set and taken away: what every module here is switched by.

In: the sites of loaded probes. Out: calls of the switches that need to know, in the watcher's own thread, within 50 ms
(`usdtkit._python`, which looks at the sites without the GIL). Nothing else costs anything while nobody traces.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Set
from typing import Any, Protocol

from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.probes import image
from usdtkit.probes.drops import describe, warn
from usdtkit.probes.namesakes import has_given_way
from usdtkit.probes.provider import Probe

try:
    from usdtkit import _python as native
except ImportError as error:
    raise UnsupportedError(
        f"this Python has no usdtkit._python: {error}", hint="install usdtkit on Linux, for this very interpreter"
    ) from error


__all__ = ["Settable", "Switch", "add", "native", "replaced", "traced", "watch"]


class Settable(Protocol):
    """Something that follows what is traced."""

    def set(self, names: Set[str], /) -> None:
        """These probes are traced, and no others."""


class Switch:
    """One hook: `turn(True)` when the first of its probes is traced, `turn(False)` when none is any more."""

    def __init__(self, probes: Set[str], turn: Callable[[bool], object]) -> None:
        self._probes = probes
        self._turn = turn
        self._on = False

    def set(self, names: Set[str], /) -> None:
        """Turn, if there is a change."""
        on = not self._probes.isdisjoint(names)
        if on != self._on:
            self._turn(on)
            self._on = on


LANGUAGE = "python"  # the provider of the names that native.PROBES has
_names: list[str] = list(native.PROBES)
_switches: list[Settable] = []


def add(switch: Settable) -> None:
    """Have a switch called from here on; the first one starts the watcher."""
    _switches.append(switch)
    if len(_switches) > 1:
        native.recheck()  # what it is for may be traced already
        return
    native.start(_switch)
    os.register_at_fork(
        before=native.stop,
        after_in_parent=native.after_fork_in_parent,
        after_in_child=native.after_fork_in_child,
    )
    # Registered early, it runs late; after it the interpreter takes itself to pieces, and nobody may switch.
    atexit.register(native.stop)


def watch(turn: Callable[[bool], object], *probes: Probe[...]) -> None:
    """Call turn(True) when somebody traces any of these loaded probes, turn(False) when nobody does any more.

    Probes that are silent here, because their file could not be loaded, are never traced. Raises UsdtkitError.
    """
    names = {f"{probe.provider}:{probe.name}": probe for probe in probes if probe.path is not None}
    for name, probe in names.items():
        if name in _names:
            continue
        try:
            native.watch(str(probe.path), image.symbol_name(probe.provider, probe.name), probe.pristine)
        except (OSError, ValueError) as error:
            raise UsdtkitError(f"{name} cannot be watched: {error}") from error
        _names.append(name)
    add(Switch(names.keys(), turn))


def traced(among: Iterable[str]) -> frozenset[str]:
    """Of these names, those that the hooks are set for."""
    return frozenset(among) & _named(native.applied())


def replaced(place: Any, name: str, make: Callable[[Any], Any]) -> Callable[[bool], None]:
    """A `turn` that puts make(original) in the place of an attribute, and the original back.

    Where somebody else has put something there meanwhile, that stays.
    """
    kept: list[tuple[Any, Any]] = []

    def turn(on: bool) -> None:
        if on:
            original = getattr(place, name)
            kept.append((original, make(original)))
            setattr(place, name, kept[-1][1])
        elif kept:
            original, ours = kept.pop()
            if getattr(place, name, None) is ours:
                setattr(place, name, original)

    return turn


def _named(bits: int) -> frozenset[str]:
    """The probes of these bits; those that have given way to probes of the program's own are nobody's business."""
    return frozenset(
        name for number, name in enumerate(_names) if bits >> number & 1 and not has_given_way(_provider_of(name))
    )


def _provider_of(name: str) -> str:
    return name.partition(":")[0] if ":" in name else LANGUAGE


def _switch(armed: int) -> None:
    """In the watcher's thread, when what is traced has changed; one bit a probe."""
    names = _named(armed)
    for switch in _switches:
        try:
            switch.set(names)
        except Exception as error:  # noqa: BLE001 what one library is like must not keep the others from being seen
            warn(f"some of {', '.join(sorted(names))} cannot be switched: {describe(error)}")
