"""The probes of gRPC calls, and the names of what they show.

Input: what `client` and `server` find of a call. Output: grpc:client__start, client__done, server__start and
server__done.
"""

from __future__ import annotations

import time
from typing import Any

from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import Probe
from usdtkit.probes.provider import ready_made as Provider

provider = Provider("grpc")
_METHOD = argument("str", doc="/package.Service/Method")
_DONE: dict[str, Any] = {
    "latency_ns": argument("u64", unit="ns"),
    "status": argument("str", doc="OK, or the name of the status, such as DEADLINE_EXCEEDED"),
}
client_start = provider.probe("client__start", doc="A call is made.", method=_METHOD, target="str")
client_done = provider.probe(
    "client__done",
    doc="A call has its status, after the last message of a stream.",
    method=_METHOD,
    target="str",
    **_DONE,
)
server_start = provider.probe("server__start", doc="A call has arrived.", method=_METHOD)
server_done = provider.probe("server__done", doc="A call has been answered.", method=_METHOD, **_DONE)


class Call:
    """A call that is traced: fires its start at once, and its end once, however often it is told to."""

    __slots__ = ("_about", "_began", "_done", "_ended")

    def __init__(self, start: Probe[...], done: Probe[...], *about: str) -> None:
        self._about, self._done, self._ended = about, done, False
        start(*about)
        self._began = time.monotonic_ns()

    def end(self, status: Any) -> None:
        """Fire the end, with a status as grpc has it: one of its enum, a number, or None for OK."""
        latency = time.monotonic_ns() - self._began
        if not self._ended:
            self._ended = True
            self._done.lazy(lambda: (*self._about, latency, status_name(status)))


def text(value: Any) -> str:
    """Return the name of a method or target, which grpc has as text or as bytes."""
    return ask(lambda: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or ""), "")


def status_name(status: Any) -> str:
    """Return the name of a status: a member of one of grpc's two enums, a number, its name itself, or None for OK."""
    if status is None:
        return "OK"
    if isinstance(status, str):
        return status
    name = getattr(status, "name", None) or _names()[int(status)]
    return str(name).upper()


def _names() -> dict[int, str]:
    import grpc  # type: ignore[import-untyped,import-not-found,unused-ignore]

    return {each.value[0]: each.name for each in grpc.StatusCode}
