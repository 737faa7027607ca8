"""WSGI applications: wsgi:request__start and wsgi:request__done, for every request.

Input: an application that `wrap` wraps; after `install` gunicorn, werkzeug and wsgiref wrap theirs. Output: method,
path, route (as declared for Flask), status, and nanoseconds until the body is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import request_probes
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install", "wrap"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_provider = Provider("wsgi")
_start, _done = request_probes(_provider)
_WRAPPED = "__usdtkit_wsgi__"


@cache
def install() -> None:
    """Wrap the applications of all servers that this process has imported or will import."""
    _provider.load()
    when_imported("wsgi", "gunicorn.util", lambda module: _wrap_result(module, "import_app"))
    when_imported(
        "wsgi", "werkzeug.serving", lambda module: _wrap_argument(module.BaseWSGIServer, "__init__", 3, "app")
    )
    when_imported(
        "wsgi", "wsgiref.simple_server", lambda module: _wrap_argument(module.WSGIServer, "set_app", 1, "application")
    )


def wrap(application: Application) -> Application:
    """Return the application with probes. They cost a request two comparisons while nobody traces."""
    if hasattr(application, _WRAPPED):
        return application

    def traced(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not (_start.enabled or _done.enabled):
            return application(environ, start_response)
        return _Request(environ).handle(application, start_response)

    setattr(traced, _WRAPPED, application)
    return traced


class _Request:
    """A traced request, and its body, which the server iterates over and closes."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._request = _request_of(environ)
        self._status, self._route = 0, ""
        self._body: Iterable[bytes] = ()
        self._ended = False
        _start(*self._request)
        self._began = time.monotonic_ns()

    def handle(self, application: Application, start_response: Callable[..., Any]) -> _Request:
        def start(status: str, *more: Any, **keywords: Any) -> Any:
            code = status[:3] if isinstance(status, str) else ""
            self._status = int(code) if code.isascii() and code.isdecimal() else 0
            # Read now, because Flask removes it from there when the request is done.
            self._route = ask(self._find_route, "")
            return start_response(status, *more, **keywords)

        try:
            self._body = application(self._environ, start)
        except BaseException:
            self._end()
            raise
        return self

    def _find_route(self) -> str:
        rule = getattr(self._environ.get("werkzeug.request"), "url_rule", None)
        return str(getattr(rule, "rule", ""))

    # A server may do all of this with a body, so each is passed on to the application's own. For example, it sends the
    # length of a body that has one item.

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def __next__(self) -> bytes:
        return next(self._body)  # type: ignore[call-overload,no-any-return]

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self._body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def close(self) -> None:
        """Close the body and end the request; the server calls this last."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        latency = time.monotonic_ns() - self._began
        if not self._ended:
            self._ended = True
            _done(*self._request, self._route, self._status, latency)


def _request_of(environ: dict[str, Any]) -> tuple[str, str]:
    """Return method and path. WSGI decodes the path as Latin-1; this decodes the same bytes as UTF-8."""
    method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
    path = path.encode("latin-1", "replace").decode("utf-8", "replace") if isinstance(path, str) else ""
    shown = ask(lambda: redaction.path(path, environ.get("QUERY_STRING", "")), path)
    return method if isinstance(method, str) else "", shown


def _wrap_result(module: ModuleType, name: str) -> list[str]:
    original = getattr(module, name)

    @wraps(original)
    def wrapped(*args: Any, **keywords: Any) -> Any:
        return wrap(original(*args, **keywords))

    setattr(module, name, wrapped)
    return [name]


def _wrap_argument(place: Any, name: str, position: int, keyword: str) -> list[str]:
    original = getattr(place, name)

    @wraps(original)
    def wrapped(*args: Any, **keywords: Any) -> Any:
        if keyword in keywords:
            keywords[keyword] = wrap(keywords[keyword])
        elif len(args) > position:
            args = (*args[:position], wrap(args[position]), *args[position + 1 :])
        return original(*args, **keywords)

    setattr(place, name, wrapped)
    return [f"{place.__name__}.{name}"]
