"""aiohttp's server, which has an interface of its own: web:request__start and web:request__done.

Input: the method of `aiohttp.web` that handles a request, which is replaced while somebody traces. Output: `served`
fires, when the response has been written. A WebSocket is the request that opens it, which lasts as long. Requests that
are no HTTP are answered by the server itself, and have no probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction, watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import Served, request_probes
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("web")
_probes = request_probes(_provider)


@cache
def install() -> None:
    """Publish the requests of all servers of this process. A second call does nothing."""
    _provider.load()
    when_imported("web", "aiohttp.web_protocol", _wrap)


def _wrap(module: ModuleType) -> Iterator[str]:
    handler = module.RequestHandler
    watcher.watch(watcher.replaced(handler, "_handle_request", _handling), *_probes)
    yield f"{handler.__name__}._handle_request"


def _handling(handle_request: Any) -> Any:
    @wraps(handle_request)
    async def traced(connection: Any, request: Any, start_time: Any, handler: Any) -> Any:
        if handler != connection._request_handler:  # one that says what is wrong with the request
            return await handle_request(connection, request, start_time, handler)
        served = Served(_probes, *ask(lambda: _request_of(request), ("", "")))

        async def handled(request: Any) -> Any:
            try:
                return await handler(request)
            except Exception as error:
                served.handled = error
                raise

        served.enter()
        try:
            response, reset = await handle_request(connection, request, start_time, handled)
            served.status = ask(lambda: response.status, 0)
            return response, reset
        except BaseException as error:  # also the cancellation of the task
            served.raised = error
            raise
        finally:
            served.leave()
            served.end(lambda: _route(request))

    return traced


def _request_of(request: Any) -> tuple[str, str]:
    return request.method, redaction.path(request.path, request.query_string)


def _route(request: Any) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else str(resource.canonical)
