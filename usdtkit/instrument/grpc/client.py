"""gRPC calls that this process makes.

Input: the classes of grpc whose objects make calls, one for each kind of method; theirs are replaced while somebody
traces. Output: calls of `calls`. An end never refers to the object that the program has of its call, because grpc
cancels a call whose object the program drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.grpc import calls
from usdtkit.probes.drops import ask

_TARGET = "_usdtkit_target"
_BLOCKING = ("_UnaryUnaryMultiCallable", "_StreamUnaryMultiCallable")
_STREAMING = (
    "_UnaryStreamMultiCallable",
    "_SingleThreadedUnaryStreamMultiCallable",
    "_StreamStreamMultiCallable",
)
_AIO = ("UnaryUnaryMultiCallable", "UnaryStreamMultiCallable", "StreamUnaryMultiCallable", "StreamStreamMultiCallable")


def wrap(module: ModuleType) -> Iterator[str]:
    """Let the calls of channels with threads fire. Returns the names of the methods that are replaced."""
    for cls in _BLOCKING:
        yield from _watch(module, cls, "__call__", _blocking)
        yield from _watch(module, cls, "with_call", _blocking)
        yield from _watch(module, cls, "future", _returning)
    for cls in _STREAMING:
        yield from _watch(module, cls, "__call__", _returning)


def wrap_aio(module: ModuleType) -> Iterator[str]:
    """Let the calls of channels of grpc.aio fire. Returns the names of the methods that are replaced."""
    initialise = module.Channel.__init__

    @wraps(initialise)
    def __init__(self: Any, target: Any, *args: Any, **keywords: Any) -> None:
        initialise(self, target, *args, **keywords)
        ask(lambda: setattr(self, _TARGET, target), None)

    module.Channel.__init__ = __init__
    for cls in _AIO:
        yield from _watch(module, cls, "__call__", _returning_aio)


def _watch(module: ModuleType, cls: str, name: str, make: Any) -> Iterator[str]:
    place = getattr(module, cls, None)  # versions differ
    if place is not None and name in vars(place):
        watcher.watch(watcher.replaced(place, name, make), calls.client_start, calls.client_done)
        yield f"{cls}.{name}"


def _begin(callable_: Any) -> calls.Call:
    about = getattr(callable_, "_method", ""), _target_of(callable_)
    return calls.Call(calls.client_start, calls.client_done, *map(calls.text, about))


def _target_of(callable_: Any) -> Any:
    """Return what the channel connects to; an object that makes calls of grpc.aio knows its channel only."""
    return getattr(callable_, "_target", None) or getattr(getattr(callable_, "_python_channel", None), _TARGET, "")


def _blocking(method: Any) -> Any:
    @wraps(method)
    def traced(callable_: Any, *args: Any, **keywords: Any) -> Any:
        call, status = _begin(callable_), None
        try:
            return method(callable_, *args, **keywords)
        except BaseException as raised:
            status = _status_in(raised)
            raise
        finally:
            call.end(status)

    return traced


def _status_in(raised: Any) -> Any:
    """Return the status in an exception; those that are not grpc's own are of a mistake in a call, or interrupt it."""
    return ask(lambda: raised.code(), "UNKNOWN")


def _returning(method: Any) -> Any:
    """Wrap a method that returns an object of the call, which goes on."""

    @wraps(method)
    def traced(callable_: Any, *args: Any, **keywords: Any) -> Any:
        call = _begin(callable_)
        try:
            made = method(callable_, *args, **keywords)
        except BaseException as raised:
            call.end(_status_in(raised))
            raise
        state: Any = getattr(made, "_state", None)
        if not ask(lambda: made.add_callback(lambda: call.end(state.code)), False):
            call.end(ask(lambda: state.code, "UNKNOWN"))  # it has ended already
        return made

    return traced


def _returning_aio(method: Any) -> Any:
    @wraps(method)
    def traced(callable_: Any, *args: Any, **keywords: Any) -> Any:
        call = _begin(callable_)
        try:
            made = method(callable_, *args, **keywords)
        except BaseException:
            call.end("UNKNOWN")
            raise
        # What a callback raises would become an exception of the program's call.
        inner: Any = getattr(made, "_cython_call", None)
        if inner is not None:
            ask(lambda: inner.add_done_callback(lambda *_: call.end(_status_of(lambda: inner.status()))), None)
        else:  # one with interceptors
            ask(lambda: made.add_done_callback(lambda ended: call.end(_status_of(lambda: ended.code()))), None)
        return made

    return traced


def _status_of(ask_for: Callable[[], Any]) -> Any:
    """Return the status of a call that has ended: the coroutine that gives it need not wait any more."""

    def status() -> Any:
        coroutine = ask_for()
        try:
            coroutine.send(None)
        except StopIteration as ended:
            return ended.value.code() if hasattr(ended.value, "code") else ended.value
        coroutine.close()
        return "UNKNOWN"

    return ask(status, "UNKNOWN")
