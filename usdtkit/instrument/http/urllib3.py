"""urllib3, and so requests: what its pools do around the requests of http.client.

Input: the module `urllib3.connectionpool`. Output: an `Exchange` for each attempt, which begins before the pool
connects to an HTTPS server. The connection hands it to `putrequest`, so that `stdlib` does not count it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument.http.exchange import PREPARED, Exchange, recall, remember, replace
from usdtkit.instrument.http.stdlib import describe


def wrap(module: ModuleType) -> Iterator[str]:
    """Wrap the method that makes one attempt."""
    return replace(module.HTTPConnectionPool, {"_make_request": _attempting})


def _attempting(make_request: Any) -> Any:
    @wraps(make_request)
    def traced(pool: Any, connection: Any, method: Any, url: Any, *args: Any, **keywords: Any) -> Any:
        remember(connection, Exchange(lambda: describe(connection, method, url)), PREPARED)
        try:
            response = make_request(pool, connection, method, url, *args, **keywords)
        except BaseException as error:
            exchange = recall(connection, PREPARED)
            if exchange is not None:  # it has failed before it was sent
                exchange.failed(error)
            raise
        exchange = recall(connection, PREPARED)
        if exchange is not None:  # urllib3 has sent it without http.client, as HTTP/2
            exchange.answered(lambda: response.status)
        return response

    return traced
