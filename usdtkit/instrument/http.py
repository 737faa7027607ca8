"""HTTP requests that this process makes: http:request__start and http:request__done.

Input: the methods of http.client.HTTPConnection, which are replaced while somebody traces; urllib and urllib3, and so
requests, are built on it. Output: method, host, port, path, status (0 if there was no response), and nanoseconds until
the response headers arrive.
"""

from __future__ import annotations

import http.client
import time
from functools import cache, wraps
from typing import Any

from usdtkit.instrument import redaction, watcher
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("http")
_start = _provider.probe("request__start", doc="A request is sent.", method="str", host="str", port="u16", path="str")
_done = _provider.probe(
    "request__done",
    doc="The response headers have arrived, or an exception was raised instead.",
    method="str",
    host="str",
    port="u16",
    path="str",
    status="u16",
    latency_ns=argument("u64", unit="ns"),
)
_STARTED = "_usdtkit_started"


@cache
def install() -> None:
    """Publish the requests of this process. A second call does nothing."""
    _provider.load()
    connection = http.client.HTTPConnection
    sends, receives = (
        watcher.replaced(connection, "putrequest", _sending),
        watcher.replaced(connection, "getresponse", _receiving),
    )

    def turn(on: bool) -> None:
        sends(on)
        receives(on)

    watcher.watch(turn, _start, _done)


def _sending(putrequest: Any) -> Any:
    @wraps(putrequest)
    def traced(connection: Any, method: str, url: str, *args: Any, **keywords: Any) -> Any:
        # A subclass may have changed these attributes into anything.
        request = ask(lambda: (method, str(connection.host), connection.port or 0, redaction.url(url)), None)
        if request is not None:
            _start(*request)
            # Not by setattr, which a subclass may have overridden too.
            connection.__dict__[_STARTED] = request, time.monotonic_ns()
        return putrequest(connection, method, url, *args, **keywords)

    return traced


def _receiving(getresponse: Any) -> Any:
    @wraps(getresponse)
    def traced(connection: Any, *args: Any, **keywords: Any) -> Any:
        request, began = connection.__dict__.pop(_STARTED, (None, 0))
        status = 0
        try:
            response = getresponse(connection, *args, **keywords)
            status = ask(lambda: response.status, 0)
            return response
        finally:
            if request is not None:  # None if the request was sent before anybody traced
                _done(*request, status, time.monotonic_ns() - began)

    return traced
