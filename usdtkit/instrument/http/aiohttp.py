"""aiohttp's client: its connectors, requests and responses.

Input: the module `aiohttp.client`. Output: an `Exchange` for each request, from the wait for a connection on. The
request carries it to its sending, and the response from there to its headers. The request with which a connector asks a
proxy for a tunnel does not come from `connect`, and is none of the program's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.http.exchange import Exchange, Request, recall, remember, replace


def wrap(module: ModuleType) -> Iterator[str]:
    """Wrap the three steps of a request."""
    yield from replace(module.BaseConnector, {"connect": _connecting})
    yield from replace(module.ClientRequest, {"send": _sending})
    yield from replace(module.ClientResponse, {"start": _receiving})


def _describe(request: Any) -> Request:
    url = request.url
    return request.method, url.host or "", url.port or 0, redaction.url(url.raw_path_qs)


def _connecting(connect: Any) -> Any:
    @wraps(connect)
    async def traced(connector: Any, request: Any, *args: Any, **keywords: Any) -> Any:
        exchange = Exchange(lambda: _describe(request))
        try:
            connection = await connect(connector, request, *args, **keywords)
        except BaseException as error:  # also the cancellation of the task
            exchange.failed(error)
            raise
        remember(request, exchange)
        return connection

    return traced


def _sending(send: Any) -> Any:
    @wraps(send)
    async def traced(request: Any, *args: Any, **keywords: Any) -> Any:
        exchange = recall(request)
        try:
            response = await send(request, *args, **keywords)
        except BaseException as error:
            if exchange is not None:
                exchange.failed(error)
            raise
        remember(response, exchange)
        return response

    return traced


def _receiving(start: Any) -> Any:
    @wraps(start)
    async def traced(response: Any, *args: Any, **keywords: Any) -> Any:
        exchange = recall(response)
        try:
            result = await start(response, *args, **keywords)
        except BaseException as error:
            if exchange is not None:
                exchange.failed(error)
            raise
        if exchange is not None:
            exchange.answered(lambda: response.status)
        return result

    return traced
