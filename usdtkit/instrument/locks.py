"""Waits for locks: locks:wait, each time a thread had to wait for a threading.Lock or RLock.

In: threading.Lock and RLock, of which `install` makes versions that ask without waiting first; so a lock that is free
fires nothing, and costs one more call. Locks made before `install` are not seen. Out: where the lock was made and where
it was waited for, nanoseconds, whether it was got.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("locks")
_wait = _provider.probe(
    "wait",
    doc="A thread has waited for a lock.",
    made=argument("str", doc="FILE:LINE where the lock was made"),
    place=argument("str", doc="FILE:LINE where it was waited for"),
    latency_ns=argument("u64", unit="ns"),
    acquired="bool",
)


@cache
def install() -> None:
    """Publish the waits for locks that are made from here on; a second time does nothing."""
    _provider.load()
    for name in ("Lock", "RLock"):
        setattr(threading, name, _factory(getattr(threading, name)))


def _place(depth: int) -> str:
    """FILE:LINE of a caller, 1 being that of the function that asks; nothing where there is none, as in a thread whose
    function is one of C's."""
    try:
        frame = sys._getframe(depth + 1)
    except ValueError:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Lock:
    """A lock with probes; what does not wait is the lock's own."""

    __slots__ = ("__weakref__", "_lock", "_made", "release")

    def __init__(self, lock: Any, made: str) -> None:
        self._lock = lock
        self._made = made
        self.release = lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        # Of another time-out the lock itself says what is wrong.
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
        # What conditions and forks ask of a lock: locked, _is_owned, _release_save, _acquire_restore, _at_fork_reinit.
        return getattr(self._lock, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._lock.__reduce_ex__(protocol)  # it says that it cannot be copied

    def __repr__(self) -> str:
        return repr(self._lock)


_ENTER = _Lock.__enter__.__code__


class _Kind(type):
    """The type of `threading.Lock` and `RLock` here. Where the original is a type (`Lock` from CPython 3.13 on), its
    instances are this one's too."""

    original: Any

    def __instancecheck__(cls, thing: object) -> bool:
        return super().__instancecheck__(thing) or (isinstance(cls.original, type) and isinstance(thing, cls.original))


def _factory(make: Callable[..., Any]) -> type[_Lock]:
    """A type, as the original is or will be: a function would become a method where a class has it for an attribute."""

    class Lock(_Lock, metaclass=_Kind):
        __slots__ = ()
        original = staticmethod(make)

        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(make(*args, **keywords), _place(1))

    Lock.__name__ = Lock.__qualname__ = getattr(make, "__name__", "Lock")
    return Lock
