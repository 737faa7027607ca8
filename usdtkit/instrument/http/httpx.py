"""httpx: the transports that send requests over a network, sync and async, HTTP/1.1 and HTTP/2.

Input: the module. Output: an `Exchange` for each call of a transport. Transports that stay within the process, such as
those of test clients, have no probes, and those of other libraries have those of that library.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.http.exchange import Exchange, Request, port_of, replace


def wrap(module: ModuleType) -> Iterator[str]:
    """Wrap the methods of both transports."""
    yield from replace(module.HTTPTransport, {"handle_request": _handling})
    yield from replace(module.AsyncHTTPTransport, {"handle_async_request": _handling_async})


def _describe(request: Any) -> Request:
    return request.method, request.url.host, port_of(request.url), redaction.url(request.url.raw_path)


def _handling(handle_request: Any) -> Any:
    @wraps(handle_request)
    def traced(transport: Any, request: Any) -> Any:
        exchange = Exchange(lambda: _describe(request))
        try:
            response = handle_request(transport, request)
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.answered(lambda: response.status_code)
        return response

    return traced


def _handling_async(handle_async_request: Any) -> Any:
    @wraps(handle_async_request)
    async def traced(transport: Any, request: Any) -> Any:
        exchange = Exchange(lambda: _describe(request))
        try:
            response = await handle_async_request(transport, request)
        except BaseException as error:  # also the cancellation of the task
            exchange.failed(error)
            raise
        exchange.answered(lambda: response.status_code)
        return response

    return traced
