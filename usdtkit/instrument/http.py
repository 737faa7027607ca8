"""Requests that this process makes: http:request__start and http:request__done.

In: http.client.HTTPConnection, which urllib and urllib3 (so requests) are built on; replaced only while somebody
traces. Out: method, host, port, path, status (0: no answer), and nanoseconds until the answer's head is there.
"""

from __future__ import annotations

import http.client
import time
from functools import cache, wraps
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("http")
_start = _provider.probe("request__start", doc="A request is sent.", method="str", host="str", port="u16", path="str")
_done = _provider.probe(
    "request__done",
    doc="The head of the answer is there, or an exception came in its place.",
    method="str",
    host="str",
    port="u16",
    path="str",
    status="u16",
    latency_ns=argument("u64", unit="ns"),
)
_BEGUN = "_usdtkit_begun"


@cache
def install() -> None:
    """Publish the requests of this process; a second time does nothing."""
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
        # A subclass may have made anything of these.
        request = ask(lambda: (method, str(connection.host), connection.port or 0, url), None)
        if request is not None:
            _start(*request)
            # Not by setattr, which it may have made its own too.
            connection.__dict__[_BEGUN] = request, time.monotonic_ns()
        return putrequest(connection, method, url, *args, **keywords)

    return traced


def _receiving(getresponse: Any) -> Any:
    @wraps(getresponse)
    def traced(connection: Any, *args: Any, **keywords: Any) -> Any:
        request, began = connection.__dict__.pop(_BEGUN, (None, 0))
        status = 0
        try:
            response = getresponse(connection, *args, **keywords)
            status = ask(lambda: response.status, 0)
            return response
        finally:
            if request is not None:  # it was sent before anybody traced
                _done(*request, status, time.monotonic_ns() - began)

    return traced
