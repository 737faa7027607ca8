"""ASGI applications: asgi:request__start and asgi:request__done, for every HTTP request.

Input: an application that `wrap` wraps; after `install` uvicorn wraps each that it loads. Output: method, path, route
(as declared for Starlette and FastAPI, else the name of the endpoint), status, and nanoseconds until the application
returns.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import request_probes
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install", "wrap"]

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]

_provider = Provider("asgi")
_start, _done = request_probes(_provider)
_WRAPPED = "__usdtkit_asgi__"


@cache
def install() -> None:
    """Wrap each application that uvicorn loads in this process from now on. A second call does nothing."""
    _provider.load()
    when_imported("asgi", "uvicorn.config", _wrap_loading)


def wrap(application: Application) -> Application:
    """Return the application with probes. They cost a request one comparison while nobody traces."""
    if hasattr(application, _WRAPPED):
        return application

    async def traced(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or not (_start.enabled or _done.enabled):
            await application(scope, receive, send)
        else:
            await _handle(application, scope, receive, send)

    setattr(traced, _WRAPPED, application)
    return traced


async def _handle(application: Application, scope: Scope, receive: Any, send: Send) -> None:
    statuses: list[Any] = []

    async def sent(message: Any) -> None:
        if isinstance(message, dict) and message.get("type") == "http.response.start":
            statuses.append(message.get("status", 0))
        await send(message)

    request = scope.get("method", ""), _path(scope)
    _start(*request)
    began = time.monotonic_ns()
    try:
        await application(scope, receive, sent)
    finally:
        latency = time.monotonic_ns() - began
        # Routes and endpoints are the application's objects. `lazy` drops and counts the exceptions that they raise.
        _done.lazy(lambda: (*request, _route(scope), statuses[0] if statuses else 0, latency))


def _path(scope: Scope) -> str:
    return ask(lambda: redaction.path(scope.get("path", ""), scope.get("query_string", b"")), "")


def _route(scope: Scope) -> str:
    """Return the route that the framework has left in the scope, or the name of the endpoint, or an empty string."""
    declared = getattr(scope.get("route"), "path", None)
    return str(declared or getattr(scope.get("endpoint"), "__name__", ""))


def _wrap_loading(module: ModuleType) -> list[str]:
    original = module.Config.load

    @wraps(original)
    def load(self: Any) -> None:
        original(self)
        self.loaded_app = wrap(self.loaded_app)

    module.Config.load = load
    return ["Config.load"]
