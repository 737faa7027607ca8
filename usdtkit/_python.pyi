"""The compiled module behind `usdtkit.instrument.watcher`. Its source is native/python.c and native/python_*.c."""

from collections.abc import Callable
from typing import Any

PROBES: tuple[str, ...]
"""The names of the probes, in the order of their numbers."""

def bind(name: str, path: str, symbol: str, pristine: int, counters: int, /) -> None:
    """Say where the site of a probe is: at a symbol of a loaded provider file. Its first byte is `pristine`.

    `counters` is what `usdtkit._probe.counters` returns for the probe. Raises OSError.
    """

def bind_interpreter(name: str, address: int, pristine: int, /) -> None:
    """Say where the interpreter fires a probe itself, once a hook is set: at an address of its file. Raises OSError."""

def watch(path: str, symbol: str, pristine: int, /) -> int:
    """Watch another probe, whose site is a symbol of a loaded file, and return its number.

    Raises OSError, and ValueError if too many probes are watched.
    """

def interpreter() -> str:
    """Return the path of the file that holds the interpreter's code: the program, or libpython."""

def filter(only: tuple[str, ...], skip: tuple[str, ...], /) -> None:
    """Set the globs of the files whose code is included, and of those that are excluded.

    Raises ValueError if they are set already.
    """

def start(switch: Callable[[int], object], /) -> None:
    """Call switch(bits) within 50 ms of each change of what is traced; bit N is that of the probe with number N."""

def applied() -> int:
    """Return the bits that `switch` was called with last."""

def recheck() -> None:
    """Call `switch` within 50 ms, even if nothing has changed."""

def look(function: Callable[[], object] | None, /) -> None:
    """Call function() from the watcher's thread every 10 ms; None ends it."""

def stop() -> None:
    """Call `switch` no more: before a fork, or for good."""

def after_fork_in_parent() -> None:
    """Undo `stop` once the call of fork has returned."""

def after_fork_in_child() -> None:
    """Undo `stop`."""

def stand_in(name: str, original: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that fires and calls the original: "find_and_load" (importlib) or "start_thread" (_thread)."""

def collection(phase: str, info: dict[str, int], /) -> None:
    """Fire a collection. For gc.callbacks."""

def audit() -> None:
    """Have audited events fire. This cannot be undone."""

def objects(on: bool, /) -> None:
    """Have objects fire when they are created and deleted. Does nothing before CPython 3.13."""

def hook(profile: bool, trace: bool, /) -> None:
    """Set our profile and trace functions in all threads, or remove them. Exists before CPython 3.12 only."""

def set_attribute(owner: type, name: str, value: object, /) -> None:
    """Set an attribute of a type as setattr does, also if the type is written in C. Raises what setattr raises."""

def measured(function: Callable[..., Any], begin: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function or method that stands in for another one, without a frame of its own.

    It calls begin(…) with its arguments. If that returns a function `done`, done(result, error, nanoseconds) is called
    after the original, with the name of the exception that it has raised, or "". The two must raise nothing but what
    interrupts the program.
    """

def waiting(
    method: Callable[..., Any],
    acquire: Callable[..., Any],
    release: Callable[..., Any],
    waited: Callable[[Any, int, bool], object],
    /,
) -> Callable[..., Any]:
    """Return a method in place of one that acquires a lock. It calls waited(lock, nanoseconds, acquired) after a wait.

    It tries `acquire` without waiting before; `acquire` and `release` are methods of the same type.
    """
