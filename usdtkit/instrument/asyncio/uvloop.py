"""The loop of uvloop, which is written in C and uses neither BaseEventLoop nor Handle of asyncio.

Input: the methods of uvloop.Loop that take callbacks, which everybody looks up at the class, the tasks of asyncio
included. They are replaced while somebody traces, and pass on the callback in an object that measures it. Callbacks of
file descriptors and methods of protocols are registered once and called for as long as a connection lasts, so these are
replaced for good, at the cost of one comparison a call. Output: calls of `tasks`.

Not seen are handlers of signals, and protocols that are written in C.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.asyncio import tasks
from usdtkit.probes.drops import ask

_FACTORIES = (
    "create_server",
    "create_connection",
    "create_unix_server",
    "create_unix_connection",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
)
"""The methods of a loop whose first argument makes protocols."""
_OF_PROTOCOLS = (
    "connection_made",
    "connection_lost",
    "data_received",
    "buffer_updated",
    "eof_received",
    "datagram_received",
    "error_received",
)
_seen: dict[int, weakref.ref[type]] = {}
_measures = False
"""Whether somebody traces any of the probes for which callbacks are measured."""


def wrap(module: ModuleType) -> Iterator[str]:
    """Let the tasks and callbacks of this loop fire. Returns the names of the methods that are replaced."""
    loop = module.Loop
    # Its base has these methods, which is written in C; what is replaced is the class that programs see.
    for name in ("create_task", "call_soon", "call_soon_threadsafe", "call_later"):
        setattr(loop, name, getattr(loop, name))
    watcher.watch(watcher.replaced(loop, "create_task", tasks.creating), tasks.create, tasks.done)
    for name in ("call_soon", "call_soon_threadsafe"):
        watcher.watch(watcher.replaced(loop, name, _calling_soon), *tasks.measured)
    # `call_at` calls it too.
    watcher.watch(watcher.replaced(loop, "call_later", _calling_later), *tasks.measured)
    watcher.watch(_measure, *tasks.measured)
    for name in ("add_reader", "add_writer"):
        setattr(loop, name, _registering(getattr(loop, name)))
    for name in _FACTORIES:
        setattr(loop, name, _making_protocols(getattr(loop, name)))
    for name in ("create_task", "call_soon", "call_soon_threadsafe", "call_later", "add_reader", "add_writer"):
        yield f"Loop.{name}"
    yield from (f"Loop.{name}" for name in _FACTORIES)


def _measure(on: bool) -> None:
    global _measures
    _measures = on


class _Callback:
    """A callback that is measured when the loop calls it. For everybody who asks it is the callback itself."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def __call__(self, *args: Any) -> Any:
        return tasks.run(self._callback, lambda: self._callback(*args))

    # uvloop shows the callback in what it logs of exceptions, and asks whether it is the step of a task.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)

    def __repr__(self) -> str:
        return repr(self._callback)

    def __str__(self) -> str:
        return str(self._callback)

    def __format__(self, spec: str) -> str:
        return format(self._callback, spec)


class _Timer(_Callback):
    """A callback that is due at a time, in nanoseconds of the monotonic clock, which libuv has too."""

    __slots__ = ("_due",)

    def __init__(self, callback: Any, due: int) -> None:
        super().__init__(callback)
        self._due = due

    def __call__(self, *args: Any) -> Any:
        tasks.lag.lazy(lambda: (max(0, time.monotonic_ns() - self._due),))
        return super().__call__(*args)


class _Registered(_Callback):
    """A callback that stays registered, and is measured only while somebody traces."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return super().__call__(*args) if _measures else self._callback(*args)


# Arguments that do not fit are passed on as they are, so that uvloop raises the exception that it raises without us.


def _calling_soon(call_soon: Any) -> Any:
    @wraps(call_soon)
    def traced(loop: Any, *args: Any, **keywords: Any) -> Any:
        if args and callable(args[0]):
            args = (_Callback(args[0]), *args[1:])
        return call_soon(loop, *args, **keywords)

    return traced


def _calling_later(call_later: Any) -> Any:
    @wraps(call_later)
    def traced(loop: Any, *args: Any, **keywords: Any) -> Any:
        if len(args) > 1 and callable(args[1]):
            delay, callback, *more = args
            due = ask(lambda: time.monotonic_ns() + int(delay * 1e9), None)
            args = args if due is None else (delay, _Timer(callback, due), *more)
        return call_later(loop, *args, **keywords)

    return traced


def _registering(add: Any) -> Any:
    @wraps(add)
    def traced(loop: Any, *args: Any, **keywords: Any) -> Any:
        if len(args) > 1 and callable(args[1]):
            args = (args[0], _Registered(args[1]), *args[2:])
        return add(loop, *args, **keywords)

    return traced


def _making_protocols(method: Any) -> Any:
    """Return a method of the loop that replaces the methods of each class of protocols that its factory makes."""

    @wraps(method)
    def traced(loop: Any, *args: Any, **keywords: Any) -> Any:
        if args and callable(args[0]):
            args = (_factory(args[0]), *args[1:])
        elif callable(keywords.get("protocol_factory")):
            keywords["protocol_factory"] = _factory(keywords["protocol_factory"])
        return method(loop, *args, **keywords)

    return traced


def _factory(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        protocol = make()
        known = _seen.get(id(type(protocol)))
        if known is None or known() is not type(protocol):
            _wrap_protocol(type(protocol))
        return protocol

    return made


def _wrap_protocol(cls: type) -> None:
    _seen[id(cls)] = weakref.ref(cls)
    for owner in cls.__mro__:
        if owner.__module__.partition(".")[0] == "asyncio":
            continue  # they pass on what they get, and a program's code does not run in them
        for name in _OF_PROTOCOLS:
            method = vars(owner).get(name)
            if isinstance(method, FunctionType) and not hasattr(method, "__usdtkit_protocol__"):
                setattr(owner, name, _method(method))


def _method(method: FunctionType) -> Any:
    """Return a method of a protocol that is measured while somebody traces, but not within a measured callback."""

    def measured(protocol: Any, *args: Any, **keywords: Any) -> Any:
        if tasks.is_running():
            return method(protocol, *args, **keywords)
        return tasks.run(method, lambda: method(protocol, *args, **keywords))

    # `data_received` as asyncio documents it is called for all that a connection receives. Without packing of arguments
    # the wrapper takes a quarter of the time.
    if method.__code__.co_varnames[: method.__code__.co_argcount] == ("self", "data") and not method.__defaults__:

        def traced(self: Any, data: Any) -> Any:
            return measured(self, data) if _measures else method(self, data)
    else:

        def traced(self: Any, *args: Any, **keywords: Any) -> Any:  # type: ignore[misc]
            return (measured if _measures else method)(self, *args, **keywords)

    traced.__usdtkit_protocol__ = True  # type: ignore[attr-defined]
    return wraps(method)(traced)
