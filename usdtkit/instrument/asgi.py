"""ASGI applications: asgi:request__start and asgi:request__done, for every HTTP request.

Input: an application that `wrap` wraps; after `install` uvicorn, hypercorn and gunicorn wrap each that they load.
Output: `served` fires, when the last piece of the body has been sent. `routes` knows the frameworks. WebSockets are
connections rather than requests, and have no probes.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from usdtkit.errors import UsdtkitError
from usdtkit.instrument import redaction, routes
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import Served, being_served, request_probes, wrap_argument, wrap_attribute
from usdtkit.probes.drops import ask, describe, warn
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install", "wrap"]

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]

_provider = Provider("asgi")
_probes = request_probes(_provider)
_WRAPPED = "__usdtkit_asgi__"
# Messages after which nothing follows; the last two are extensions, which send a file.
_LAST = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")


@cache
def install() -> None:
    """Wrap each application that a server loads in this process from now on. A second call does nothing."""
    _provider.load()
    _follow()
    when_imported("asgi", "uvicorn.config", lambda module: [wrap_attribute(module.Config, "load", "loaded_app", wrap)])
    when_imported(
        "asgi",
        "hypercorn.app_wrappers",
        lambda module: [wrap_argument(module.ASGIWrapper, "__init__", 1, "app", wrap)],
    )
    when_imported(
        "asgi", "gunicorn.workers.gasgi", lambda module: [wrap_attribute(module.ASGIWorker, "load_wsgi", "asgi", wrap)]
    )


@cache
def _follow() -> None:
    """Note the routes of frameworks too. Applications may be wrapped without `install`."""
    try:
        _provider.load()
        routes.follow("asgi", *_probes)
    except UsdtkitError as error:
        warn(f"not instrumented: asgi: {describe(error)}")


def wrap(application: Application) -> Application:
    """Return the application with probes. They cost a request two comparisons while nobody traces."""
    if hasattr(application, _WRAPPED):
        return application
    _follow()
    start, done = _probes

    async def traced(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or not (start.enabled or done.enabled) or being_served() is not None:
            await application(scope, receive, send)
        else:
            await _handle(application, scope, receive, send)

    setattr(traced, _WRAPPED, application)
    return traced


async def _handle(application: Application, scope: Scope, receive: Any, send: Send) -> None:
    served = Served(_probes, scope.get("method", ""), _path(scope))
    served.prefix = scope.get("root_path", "")
    begun = False

    async def sent(message: Any) -> None:
        nonlocal begun
        kind = message.get("type") if isinstance(message, dict) else ""
        if kind == "http.response.start" and not begun:
            begun, served.status = True, message.get("status", 0)
        await send(message)
        if kind in _LAST and not message.get("more_body"):
            # Starlette sends the response to an exception while it handles that.
            served.handled = served.handled or sys.exc_info()[1]
            served.end(lambda: _route(scope))

    served.enter()
    try:
        await application(scope, receive, sent)
    except BaseException as error:  # also the cancellation of the task
        served.raised = error
        raise
    finally:
        served.leave()
        served.end(lambda: _route(scope))


def _path(scope: Scope) -> str:
    return ask(lambda: redaction.path(scope.get("path", ""), scope.get("query_string", b"")), "")


def _route(scope: Scope) -> str:
    """Return the route that the framework has left in the scope, or the name of the endpoint, or an empty string."""
    route = scope.get("route")
    if route is not None and routes.is_mount(route):
        return "/"
    # FastAPI leaves the route as it was declared, and the path with the prefixes of its routers elsewhere.
    fastapi = scope.get("fastapi")
    context = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    if context is not None and context.original_route is route:
        route = context
    declared = getattr(route, "path", None)
    return str(declared or getattr(scope.get("endpoint"), "__name__", ""))
