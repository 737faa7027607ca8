"""ASGI applications: asgi:request__start and asgi:request__done, for every HTTP request.

In: an application, wrapped by `wrap`, or by `install` where uvicorn takes it. Out: method, path, route (of Starlette
and FastAPI as it was declared, else the name of who answers), status and nanoseconds until the application returns.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import request_probes
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
    """Wrap the applications that uvicorn loads in this process from here on."""
    _provider.load()
    when_imported("uvicorn.config", _wrap_loading)


def wrap(application: Application) -> Application:
    """The same application, with probes: one comparison a request while nobody traces."""
    if hasattr(application, _WRAPPED):
        return application

    async def traced(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or not (_start.enabled or _done.enabled):
            await application(scope, receive, send)
        else:
            await _answer(application, scope, receive, send)

    setattr(traced, _WRAPPED, application)
    return traced


async def _answer(application: Application, scope: Scope, receive: Any, send: Send) -> None:
    statuses: list[Any] = []

    async def sent(message: Any) -> None:
        if isinstance(message, dict) and message.get("type") == "http.response.start":
            statuses.append(message.get("status", 0))
        await send(message)

    asked = scope.get("method", ""), scope.get("path", "")
    _start(*asked)
    began = time.monotonic_ns()
    try:
        await application(scope, receive, sent)
    finally:
        latency = time.monotonic_ns() - began
        # Routes and endpoints are objects of the application's: what is wrong with them is the probe's to swallow.
        _done.lazy(lambda: (*asked, _route(scope), statuses[0] if statuses else 0, latency))


def _route(scope: Scope) -> str:
    """What frameworks leave in the scope when they have found who answers."""
    declared = getattr(scope.get("route"), "path", None)
    return str(declared or getattr(scope.get("endpoint"), "__name__", ""))


def _wrap_loading(module: ModuleType) -> None:
    original = module.Config.load

    @wraps(original)
    def load(self: Any) -> None:
        original(self)
        self.loaded_app = wrap(self.loaded_app)

    module.Config.load = load
