"""Waits for locks: locks:wait, each time that a thread has waited for a threading.Lock or RLock.

Input: threading.Lock and RLock, which `install` replaces by functions that remember where each lock was created; the
locks themselves are the interpreter's own. Their methods are replaced while somebody traces. They try to acquire the
lock without waiting first, so a free lock fires nothing. Locks that were created before `install` have no probe.
Output: where the lock was created, where it was waited for, nanoseconds, and whether it was acquired.

Condition, Semaphore, Event and queue.Queue are seen by the lock that each of them has: a wait for that lock fires, a
wait to be notified does not. The places are those of the code that uses them, not of their own modules.
"""

from __future__ import annotations

import queue
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from usdtkit.instrument import watcher
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

_METHODS = ("acquire", "acquire_lock", "__enter__")
_LIBRARY = frozenset(module.__file__ for module in (threading, queue))


@cache
def install() -> None:
    """Publish the waits for locks that are created from now on. A second call does nothing."""
    _provider.load()
    turns = []
    for name in ("Lock", "RLock"):
        make = getattr(threading, name)
        kind = type(make())
        turns += [watcher.replaced(kind, method, _waiting(kind)) for method in _METHODS if method in vars(kind)]
        setattr(threading, name, _factory(make))

    def turn(on: bool) -> None:
        for each in turns:
            each(on)

    watcher.watch(turn, _wait)
    engaged("locks", "threading", ("Lock", "RLock"))


def _waiting(kind: Any) -> Callable[[Any], Any]:
    acquire, release = kind.acquire, kind.release
    return lambda original: watcher.native.waiting(original, acquire, release, _waited)


def _waited(lock: Any, latency: int, acquired: bool) -> None:
    for reference in weakref.getweakrefs(lock):
        if type(reference) is _Made:
            _wait(reference.place, _place(sys._getframe(1)), latency, acquired)


def _place(frame: FrameType | None) -> str:
    """Return FILE:LINE of the frame, or of the first of its callers that is not of the library of locks.

    Returns an empty string if there is none, as in a thread whose function is written in C.
    """
    while frame is not None and frame.f_code.co_filename in _LIBRARY:
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Made(weakref.ref[Any]):
    """Where a lock was created. It lives as long as the lock does."""

    __slots__ = ("place",)
    place: str


_made: set[_Made] = set()


class _Kind(type):
    """The type of the replacements of `threading.Lock` and `RLock`.

    If the original is a type (`Lock` from CPython 3.13 on), its instances count as instances of the replacement too.
    """

    original: Any

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(cls.original, type) and isinstance(instance, cls.original)


def _factory(make: Callable[..., Any]) -> type:
    """Return a type, because a function would become a method if a class has it as an attribute."""

    class Lock(metaclass=_Kind):
        __slots__ = ()
        original = staticmethod(make)

        def __new__(cls, *args: Any, **keywords: Any) -> Any:
            lock = make(*args, **keywords)
            reference = _Made(lock, _made.discard)
            try:
                reference.place = _place(sys._getframe(1))
            except ValueError:
                reference.place = ""
            _made.add(reference)
            return lock

    Lock.__name__ = Lock.__qualname__ = getattr(make, "__name__", "Lock")
    return Lock
