"""HTTP requests that this process makes: http:request__start and http:request__done, whichever library makes them.

Input: http.client (and so urllib, urllib3 and requests), httpx and aiohttp; each has a module here, which replaces
functions of the library while somebody traces. Output: `exchange`, which has the two probes, fires them. Each request
that is sent is one start and one done: every attempt, every redirect, and every request of a connection that is kept.
"""

from __future__ import annotations

from functools import cache

from usdtkit.instrument.http import aiohttp, exchange, httpx, stdlib, urllib3
from usdtkit.instrument.imports import when_imported

__all__ = ["install"]


@cache
def install() -> None:
    """Publish the requests of the libraries that this process has or will have imported. A second call does nothing."""
    exchange.provider.load()
    when_imported("http", "http.client", stdlib.wrap)
    when_imported("http", "urllib3.connectionpool", urllib3.wrap)
    when_imported("http", "httpx", httpx.wrap)
    when_imported("http", "aiohttp.client", aiohttp.wrap)
