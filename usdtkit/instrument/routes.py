"""What frameworks know of a request that no server does: its route, and the exception behind a response.

Input: Django, Flask and Starlette, whose functions are replaced while somebody traces the probes of requests. Output:
they are noted in the request of `served` that is being handled. (FastAPI and aiohttp leave theirs where `asgi` and
`web` find them.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import being_served
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import Probe


class Shared:
    """Turns something on for the first of those who want it, and off after the last.

    If each of them replaced the same function, the one that ends first could not be taken out below the other.
    """

    def __init__(self, turn: Callable[[bool], object]) -> None:
        self._turn = turn
        self._users = 0

    def __call__(self, on: bool) -> None:
        """Say that one more wants it, or one fewer."""
        self._users += 1 if on else -1
        if self._users == (1 if on else 0):
            self._turn(on)


_shared: dict[tuple[Any, str], Shared] = {}


def follow(integration: str, *probes: Probe[...]) -> None:
    """Note the routes and exceptions of the frameworks that this process has or will have imported."""

    def replace(place: Any, name: str, make: Callable[[Any], Any]) -> Iterator[str]:
        turn = _shared.setdefault((place, name), Shared(watcher.replaced(place, name, make)))
        watcher.watch(turn, *probes)
        yield name

    def wrap(library: str, name: str, make: Callable[[Any], Any], cls: str = "") -> None:
        def wrap_in(module: ModuleType) -> Iterator[str]:
            return replace(getattr(module, cls) if cls else module, name, make)

        when_imported(integration, library, wrap_in)

    wrap("django.core.handlers.base", "resolve_request", _resolving, "BaseHandler")
    wrap("django.core.handlers.exception", "response_for_exception", _answering)
    wrap("flask.app", "handle_exception", _answering, "Flask")
    wrap("starlette.routing", "handle", _mounting, "Mount")


def is_mount(route: Any) -> bool:
    """Return whether this route of Starlette's is an application that is mounted, in which no route was found."""
    starlette = sys.modules.get("starlette.routing")
    return starlette is not None and isinstance(route, starlette.Mount)


def _resolving(resolve_request: Any) -> Any:
    @wraps(resolve_request)
    def traced(handler: Any, request: Any) -> Any:
        match = resolve_request(handler, request)
        served = being_served()
        if served is not None:
            served.route = ask(lambda: f"/{match.route}", "")
        return match

    return traced


def _answering(make_response: Any) -> Any:
    """The second argument is the exception, both in Django and in Flask."""

    @wraps(make_response)
    def traced(request_or_flask: Any, error: Any, *args: Any, **keywords: Any) -> Any:
        served = being_served()
        if served is not None:
            served.handled = error
        return make_response(request_or_flask, error, *args, **keywords)

    return traced


def _mounting(handle: Any) -> Any:
    @wraps(handle)
    async def traced(mount: Any, scope: Any, receive: Any, send: Any) -> None:
        served = being_served()
        if served is not None:
            served.prefix += ask(lambda: str(mount.path), "")
        await handle(mount, scope, receive, send)

    return traced
