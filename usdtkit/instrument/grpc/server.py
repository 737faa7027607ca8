"""gRPC calls that this process serves.

Input: functions of grpc's server with threads, which are replaced while somebody traces. The server of grpc.aio is
written in C and asks handlers for the functions of the program; these handlers are wrapped for good when they are added
to a server, and give out other functions while somebody traces. Output: calls of `calls`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.grpc import calls
from usdtkit.probes.drops import ask

_STATUS = "_usdtkit_status"


def wrap(module: ModuleType) -> list[str]:
    """Let the calls of servers with threads fire. Returns the names of the functions that are replaced."""
    for name, make in (
        ("_handle_call", _handling),
        ("_reject_rpc", _rejecting),
        ("_abort", lambda abort: _aborting(abort, module._abortion_code)),
    ):
        watcher.watch(watcher.replaced(module, name, make), calls.server_start, calls.server_done)
    return ["_handle_call", "_reject_rpc", "_abort"]


def _handling(handle: Any) -> Any:
    @wraps(handle)
    def traced(event: Any, method_with_handler: Any, *args: Any, **keywords: Any) -> Any:
        method = ask(lambda: _method_of(event, method_with_handler), b"")
        if not method:
            return handle(event, method_with_handler, *args, **keywords)
        call = calls.Call(calls.server_start, calls.server_done, calls.text(method))
        state, future = handle(event, method_with_handler, *args, **keywords)
        if state is not None and future is not None:
            # All events of a call come to this thread, so the call cannot end meanwhile.
            with state.condition:
                if state.callbacks is not None:
                    state.callbacks.append(lambda: call.end(_status_of(state)))
        else:
            call.end(getattr(state, _STATUS, "UNKNOWN"))
        return state, future

    return traced


def _method_of(event: Any, method_with_handler: Any) -> Any:
    """Return the method of a call that has arrived, or nothing if the event is not of one."""
    return event.success and (event.call_details.method or method_with_handler.name())


def _status_of(state: Any) -> Any:
    return "CANCELLED" if state.client == "cancelled" else getattr(state, _STATUS, state.code)


def _rejecting(reject: Any) -> Any:
    @wraps(reject)
    def traced(event: Any, state: Any, status: Any, *args: Any, **keywords: Any) -> Any:
        setattr(state, _STATUS, status)
        return reject(event, state, status, *args, **keywords)

    return traced


def _aborting(abort: Any, effective: Callable[[Any, Any], Any]) -> Any:
    @wraps(abort)
    def traced(state: Any, call: Any, status: Any, *args: Any, **keywords: Any) -> Any:
        setattr(state, _STATUS, ask(lambda: effective(state, status), status))
        return abort(state, call, status, *args, **keywords)

    return traced


def wrap_aio(module: ModuleType) -> Iterator[str]:
    """Let the calls of servers of grpc.aio fire that are made from now on. Returns the names of what is wrapped."""
    server = module.Server
    initialise, add = server.__init__, server.add_generic_rpc_handlers

    @wraps(initialise)
    def __init__(self: Any, thread_pool: Any, generic_handlers: Any, *args: Any, **keywords: Any) -> None:
        initialise(self, thread_pool, _wrapped(generic_handlers), *args, **keywords)

    @wraps(add)
    def add_generic_rpc_handlers(self: Any, generic_rpc_handlers: Any) -> None:
        add(self, _wrapped(generic_rpc_handlers))

    server.__init__, server.add_generic_rpc_handlers = __init__, add_generic_rpc_handlers
    yield from ("Server.__init__", "Server.add_generic_rpc_handlers")


def _wrapped(handlers: Any) -> Any:
    return [_Handlers(each) for each in handlers] if isinstance(handlers, (list, tuple)) else handlers


class _Handlers:
    """The handlers of a service of the program; gives out traced ones while somebody traces."""

    def __init__(self, handlers: Any) -> None:
        self._handlers = handlers

    def service(self, details: Any) -> Any:
        handler = self._handlers.service(details)
        if handler is None or not (calls.server_start.enabled or calls.server_done.enabled):
            return handler
        return ask(lambda: _traced(handler, calls.text(details.method)), handler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handlers, name)


class _Traced:
    """A handler of one method, whose function is another one; all else is that of the program's handler."""

    def __init__(self, handler: Any, name: str, function: Any) -> None:
        self._handler = handler
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def _traced(handler: Any, method: str) -> Any:
    kind = {False: "unary", True: "stream"}
    name = f"{kind[bool(handler.request_streaming)]}_{kind[bool(handler.response_streaming)]}"
    return _Traced(handler, name, _function(getattr(handler, name), method))


def _function(function: Any, method: str) -> Any:
    """Return a function of the same kind, because grpc asks which of the four kinds it is."""

    def begin() -> calls.Call:
        return calls.Call(calls.server_start, calls.server_done, method)

    def end(call: calls.Call, context: Any, raised: BaseException | None) -> None:
        call.end(ask(lambda: _status_after(context, raised), "UNKNOWN"))

    if inspect.isasyncgenfunction(function):

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            call, error = begin(), None
            try:
                async for message in function(request, context):
                    yield message
            except BaseException as raised:
                error = raised
                raise
            finally:
                end(call, context, error)

        return wraps(function)(generate)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        async def answer(request: Any, context: Any) -> Any:
            call, error = begin(), None
            try:
                return await function(request, context)
            except BaseException as raised:
                error = raised
                raise
            finally:
                end(call, context, error)

        return wraps(function)(answer)
    if inspect.isgeneratorfunction(function):

        def yields(request: Any, context: Any) -> Iterator[Any]:
            call, error = begin(), None
            try:
                yield from function(request, context)
            except BaseException as raised:
                error = raised
                raise
            finally:
                end(call, context, error)

        return wraps(function)(yields)

    def returns(request: Any, context: Any) -> Any:
        call, error = begin(), None
        try:
            return function(request, context)
        except BaseException as raised:
            error = raised
            raise
        finally:
            end(call, context, error)

    return wraps(function)(returns)


def _status_after(context: Any, raised: BaseException | None) -> Any:
    status = context.code()
    if type(raised).__name__ in ("CancelledError", "GeneratorExit"):
        return "CANCELLED"
    return "UNKNOWN" if raised is not None and status in (None, 0) else status
