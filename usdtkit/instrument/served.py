"""A request that this process handles: request__start and request__done of the providers wsgi, asgi and web.

Input: what a server's interface (`wsgi`, `asgi`, `web`) and a framework (`routes`) know of the request. Output: method,
path, route (as it was declared), status, nanoseconds until the end of the body, and the name of the exception that left
the application, or of which it has made a status from 500 on. All of them fire once a request, whoever is asked first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any, NamedTuple

from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import Probe, Provider


class RequestProbes(NamedTuple):
    """The two probes of one provider."""

    start: Probe[...]
    done: Probe[...]


def request_probes(provider: Provider) -> RequestProbes:
    """Declare and return request__start and request__done."""
    start = provider.probe("request__start", doc="A request has arrived.", method="str", path="str")
    done = provider.probe(
        "request__done",
        doc="A request has been handled; status is 0 if the application raised an exception before it set one.",
        method="str",
        path="str",
        route=argument("str", doc="the path as it was declared, such as /order/{number}, or empty"),
        status="u16",
        latency_ns=argument("u64", unit="ns", doc="until the body was at its end"),
        error=argument("str", doc="name of the exception that the application raised or made a status >= 500 of"),
    )
    return RequestProbes(start, done)


class Served:
    """A request from now on, until `end` is called."""

    def __init__(self, probes: RequestProbes, method: str, path: str) -> None:
        self._done = probes.done
        self._request = method, path
        self._token: Token[Served | None] | None = None
        self.ended = False
        self.prefix, self.route = "", ""
        """Where the application is mounted, and its route below that."""
        self.status: Any = 0
        self.handled: BaseException | None = None
        """What the application has caught, and may have made a response of."""
        self.raised: BaseException | None = None
        """What has left the application."""
        probes.start(method, path)
        self._began = time.monotonic_ns()

    def enter(self) -> None:
        """Let `being_served` return this request in all that is called from here on, until `leave`."""
        self._token = _current.set(self)

    def leave(self) -> None:
        """Undo `enter`. Does nothing if the server goes on in another context."""
        token = self._token
        if token is not None:
            ask(lambda: _current.reset(token), None)

    def end(self, route: Callable[[], str] = str) -> None:
        """Fire request__done, the first time. `route` finds the route below the prefix, if none has been noted."""
        latency = time.monotonic_ns() - self._began
        if self.ended:
            return
        self.ended = True
        # `route` and the status are the program's: `lazy` drops and counts what they raise.
        self._done.lazy(lambda: (*self._request, self._declared(route), self.status, latency, self._error()))

    def _declared(self, route: Callable[[], str]) -> str:
        found = self.route or route()
        return f"{self.prefix}{found}" if found.startswith("/") else found

    def _error(self) -> str:
        error = self.raised
        if error is None and (not isinstance(self.status, int) or self.status >= 500):
            error = self.handled
        return "" if error is None else type(error).__name__


_current: ContextVar[Served | None] = ContextVar("usdtkit_served", default=None)


def being_served() -> Served | None:
    """Return the request that the caller handles, if it is traced and has not ended.

    An application with probes that is called meanwhile, by another one, belongs to that request.
    """
    served = _current.get()
    return None if served is None or served.ended else served


def wrap_argument(place: Any, name: str, position: int, keyword: str, wrap: Callable[[Any], Any]) -> str:
    """Let a function that is given an application wrap it first. Returns its name."""
    original = getattr(place, name)

    @wraps(original)
    def wrapped(*args: Any, **keywords: Any) -> Any:
        if keyword in keywords:
            keywords[keyword] = wrap(keywords[keyword])
        elif len(args) > position:
            args = (*args[:position], wrap(args[position]), *args[position + 1 :])
        return original(*args, **keywords)

    setattr(place, name, wrapped)
    return f"{place.__name__}.{name}"


def wrap_attribute(place: Any, name: str, attribute: str, wrap: Callable[[Any], Any]) -> str:
    """Wrap the application that a method leaves in an attribute. Returns the method's name."""
    original = getattr(place, name)

    @wraps(original)
    def wrapped(self: Any, *args: Any, **keywords: Any) -> Any:
        result = original(self, *args, **keywords)
        setattr(self, attribute, wrap(getattr(self, attribute)))
        return result

    setattr(place, name, wrapped)
    return f"{place.__name__}.{name}"
