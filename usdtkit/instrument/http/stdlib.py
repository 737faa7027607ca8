"""http.client.HTTPConnection, on which urllib, urllib3 and requests are built.

Input: the module. Output: an `Exchange` for each request, which the connection carries from `putrequest` over the
sending, in which the connection may be made, to `getresponse`. A connection that is closed before that has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from usdtkit.instrument import redaction
from usdtkit.instrument.http.exchange import PREPARED, Exchange, Request, port_of, recall, remember, replace


def wrap(module: ModuleType) -> Iterator[str]:
    """Wrap the methods that every request goes through."""
    return replace(
        module.HTTPConnection,
        {
            "putrequest": _beginning,
            "endheaders": _sending,
            "send": _sending,
            "getresponse": _receiving,
            "close": _closing,
        },
    )


def describe(connection: Any, method: str, url: str) -> Request:
    """Return the request as the server gets it, also if it goes through a proxy."""
    if "://" in url.partition("?")[0]:  # for a proxy
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return method, parts.hostname or "", port_of(parts), redaction.url(path)
    tunnelled = getattr(connection, "_tunnel_host", None)
    host, port = (tunnelled, connection._tunnel_port) if tunnelled else (connection.host, connection.port)
    return method, str(host), port or 0, redaction.url(url)


def _beginning(putrequest: Any) -> Any:
    @wraps(putrequest)
    def traced(connection: Any, method: Any, url: Any, *args: Any, **keywords: Any) -> Any:
        # It only fills a buffer, and what it refuses is not sent.
        result = putrequest(connection, method, url, *args, **keywords)
        prepared = recall(connection, PREPARED)
        remember(connection, prepared or Exchange(lambda: describe(connection, method, url)))
        return result

    return traced


def _sending(send: Any) -> Any:
    @wraps(send)
    def traced(connection: Any, *args: Any, **keywords: Any) -> Any:
        exchange = recall(connection)  # so that it does not end if the connection is closed and made anew
        try:
            result = send(connection, *args, **keywords)
        except BaseException as error:
            # A server may answer and close the connection before it has read all. urllib3 reads such an answer.
            if exchange is not None and isinstance(error, ConnectionError) and connection.sock is not None:
                exchange.broken = error
                remember(connection, exchange)
            elif exchange is not None:
                exchange.failed(error)
            raise
        remember(connection, exchange)
        return result

    return traced


def _receiving(getresponse: Any) -> Any:
    @wraps(getresponse)
    def traced(connection: Any, *args: Any, **keywords: Any) -> Any:
        exchange = recall(connection)
        try:
            response = getresponse(connection, *args, **keywords)
        except BaseException as error:
            if exchange is not None:
                exchange.failed(error)
            raise
        if exchange is not None:
            exchange.answered(lambda: response.status)
        return response

    return traced


def _closing(close: Any) -> Any:
    @wraps(close)
    def traced(connection: Any, *args: Any, **keywords: Any) -> Any:
        exchange = recall(connection)
        if exchange is not None:
            exchange.failed(exchange.broken)
        return close(connection, *args, **keywords)

    return traced
