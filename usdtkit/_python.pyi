"""The compiled module behind `usdtkit.instrument.watcher`; its source is native/python.c."""

from collections.abc import Callable
from typing import Any

PROBES: tuple[str, ...]
"""Names of the probes, by their numbers."""

def bind(name: str, path: str, symbol: str, pristine: int, /) -> None:
    """The site of a probe is this symbol of a loaded provider file, and its first byte this one. Raises OSError."""

def look_at(name: str, address: int, pristine: int, /) -> None:
    """The interpreter fires this probe itself, at this address of its file, once a hook is set. Raises OSError."""

def watch(path: str, symbol: str, pristine: int, /) -> int:
    """The number of another probe, whose site is this symbol of a loaded file. Raises OSError, ValueError."""

def interpreter() -> str:
    """Path of the file that the interpreter's code is in: the program, or libpython."""

def filter(only: tuple[str, ...], skip: tuple[str, ...], /) -> None:
    """Globs of file names: code of others is not seen. Once. Raises ValueError."""

def start(switch: Callable[[int], object], /) -> None:
    """Call switch(bits), bit N for the probe of number N, within 50 ms of each change of what is traced."""

def applied() -> int:
    """The last bits that were switched to."""

def again() -> None:
    """Call `switch` within 50 ms, whether or not something has changed."""

def stop() -> None:
    """No more changes: before a fork, or for good."""

def after_fork_in_parent() -> None:
    """Undo `stop` once the call of fork has returned."""

def after_fork_in_child() -> None:
    """Undo `stop`."""

def stand_in(name: str, original: Callable[..., Any], /) -> Callable[..., Any]:
    """What fires around the original: "find_and_load" of importlib, "start_thread" of _thread."""

def collection(phase: str, info: dict[str, int], /) -> None:
    """A callback for gc.callbacks."""

def audit() -> None:
    """Have audited events fire, from here on for good."""

def objects(wanted: bool, /) -> None:
    """Have objects fire where they are made and taken apart; before CPython 3.13 nothing."""

def hook(profile: bool, trace: bool, /) -> None:
    """Before CPython 3.12: set our profile and trace functions in all threads, or take them away."""
