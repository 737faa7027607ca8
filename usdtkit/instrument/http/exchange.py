"""One request and the answer to it, for all HTTP clients: fires http:request__start and http:request__done.

Input: what a client knows of its request, and how that ended. Output: method, host, port and path of the request, the
status (0 if no response came), nanoseconds, and the name of the exception that came instead of a response, or "". The
time begins when the client takes the request up and ends when the headers of the response are there, or the exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

provider = Provider("http")
_start = provider.probe("request__start", doc="A request is sent.", method="str", host="str", port="u16", path="str")
_done = provider.probe(
    "request__done",
    doc="The headers of the response have arrived, or an exception was raised instead.",
    method="str",
    host="str",
    port="u16",
    path="str",
    status="u16",
    latency_ns=argument("u64", unit="ns"),
    error=argument("str", doc="name of the exception that was raised, or empty"),
)
Request = tuple[str, str, int, str]
PREPARED = "_usdtkit_prepared"
_SENT = "_usdtkit_sent"
_PORTS = {"http": 80, "https": 443}


class Exchange:
    """A request from now on, until `answered` or `failed` is called."""

    def __init__(self, describe: Callable[[], Request]) -> None:
        self._describe = describe
        self._request: Request | None = None
        self.broken: BaseException | None = None
        """The exception that broke the connection, if the response may still arrive all the same."""
        _start.lazy(self._described)
        self._began = time.monotonic_ns()

    def _described(self) -> Request:
        """Return the request as it was at its start. Runs the program's code."""
        if self._request is None:
            self._request = self._describe()
        return self._request

    def answered(self, status: Callable[[], Any]) -> None:
        """End it. `status` returns that of the response, which is an object of the program."""
        latency = time.monotonic_ns() - self._began
        _done.lazy(lambda: (*self._described(), ask(status, 0), latency, ""))

    def failed(self, error: BaseException | None) -> None:
        """End it without a response."""
        latency = time.monotonic_ns() - self._began
        _done.lazy(lambda: (*self._described(), 0, latency, "" if error is None else type(error).__name__))


def port_of(url: Any) -> int:
    """Return the port of a URL, an object with `port` and `scheme`: the one that it names, or the usual one."""
    return url.port or _PORTS.get(url.scheme, 0)


def remember(thing: Any, exchange: Exchange | None, key: str = _SENT) -> None:
    """Let an object of the client carry the exchange to the next step. PREPARED is for one that is not sent yet."""
    # Not by setattr, which a subclass may have overridden.
    if exchange is not None:
        ask(lambda: thing.__dict__.update({key: exchange}), None)


def recall(thing: Any, key: str = _SENT) -> Exchange | None:
    """Return what `remember` has given this object, and forget it. None if the request began before anybody traced."""
    found: Exchange | None = ask(lambda: thing.__dict__.pop(key, None), None)
    return found


def replace(cls: type, replacements: dict[str, Callable[[Any], Any]]) -> Iterator[str]:
    """Replace methods of a class while somebody traces one of the two probes, and return their names."""
    for name, make in replacements.items():
        watcher.watch(watcher.replaced(cls, name, make), _start, _done)
        yield f"{cls.__name__}.{name}"
