"""Waits for locks: locks:wait, each time that a thread has waited for a threading.Lock or RLock.

Input: threading.Lock and RLock, which `install` replaces. The replacement tries to acquire the lock without waiting
first, so a free lock fires nothing and costs one more call. Locks that were created before `install` have no probe.
Output: where the lock was created, where it was waited for, nanoseconds, and whether it was acquired.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from usdtkit.instrument.engagement import engaged
from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("locks")
_wait = _provider.probe(
    "wait",
    doc="A thread has waited for a lock.",
    made=argument("str", doc="FILE:LINE where the lock was created"),
    place=argument("str", doc="FILE:LINE where the thread waited for it"),
    latency_ns=argument("u64", unit="ns"),
    acquired="bool",
)


@cache
def install() -> None:
    """Publish the waits for locks that are created from now on. A second call does nothing."""
    _provider.load()
    for name in ("Lock", "RLock"):
        setattr(threading, name, _factory(getattr(threading, name)))
    engaged("locks", "threading", ("Lock", "RLock"))


def _place(depth: int) -> str:
    """Return FILE:LINE of a caller of the calling function; `depth` 1 is the nearest.

    Returns an empty string if there is none, as in a thread whose function is written in C.
    """
    try:
        frame = sys._getframe(depth + 1)
    except ValueError:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Lock:
    """A lock with probes. All methods that do not wait are those of the original lock."""

    __slots__ = ("__weakref__", "_lock", "_made", "release")

    def __init__(self, lock: Any, made: str) -> None:
        self._lock = lock
        self._made = made
        self.release = lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        # For any other timeout the original lock raises the right exception.
        if (timeout == -1 or (blocking and 0 <= timeout <= threading.TIMEOUT_MAX)) and self._lock.acquire(False):
            return True
        if not blocking or not _wait.enabled:
            return bool(self._lock.acquire(blocking, timeout))
        began, acquired = time.monotonic_ns(), False
        try:
            acquired = bool(self._lock.acquire(blocking, timeout))
            return acquired
        finally:
            latency = time.monotonic_ns() - began
            depth = 2 if sys._getframe(1).f_code is _ENTER else 1
            _wait(self._made, _place(depth), latency, acquired)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        # Conditions and forks use these: locked, _is_owned, _release_save, _acquire_restore, _at_fork_reinit.
        return getattr(self._lock, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._lock.__reduce_ex__(protocol)  # raises the original's error, because locks cannot be copied

    def __repr__(self) -> str:
        return repr(self._lock)


_ENTER = _Lock.__enter__.__code__


class _Kind(type):
    """The type of the replacements of `threading.Lock` and `RLock`.

    If the original is a type (`Lock` from CPython 3.13 on), its instances count as instances of the replacement too.
    """

    original: Any

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or (
            isinstance(cls.original, type) and isinstance(instance, cls.original)
        )


def _factory(make: Callable[..., Any]) -> type[_Lock]:
    """Return a type, because a function would become a method if a class has it as an attribute."""

    class Lock(_Lock, metaclass=_Kind):
        __slots__ = ()
        original = staticmethod(make)

        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(make(*args, **keywords), _place(1))

    Lock.__name__ = Lock.__qualname__ = getattr(make, "__name__", "Lock")
    return Lock
