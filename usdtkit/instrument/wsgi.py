"""WSGI applications: wsgi:request__start and wsgi:request__done, for every request.

Input: an application that `wrap` wraps; after `install` gunicorn, waitress, hypercorn, werkzeug and wsgiref wrap
theirs. Output: `served` fires, when the server closes the body. `routes` knows the frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from types import ModuleType
from typing import Any

from usdtkit.errors import UsdtkitError
from usdtkit.instrument import redaction, routes
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.served import Served, being_served, request_probes, wrap_argument, wrap_attribute
from usdtkit.probes.drops import ask, describe, warn
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install", "wrap"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_provider = Provider("wsgi")
_probes = request_probes(_provider)
_WRAPPED = "__usdtkit_wsgi__"
# The workers that call an application by WSGI. Others keep one of ASGI or of aiohttp in the same attribute.
_GUNICORN = (("sync", "SyncWorker"), ("gthread", "ThreadWorker"), ("base_async", "AsyncWorker"))
# The functions that other servers give their application to: module, class, method, position and name of the argument.
_SERVERS = (
    ("waitress.server", "BaseWSGIServer", "__init__", 1, "application"),
    ("hypercorn.app_wrappers", "WSGIWrapper", "__init__", 1, "app"),
    ("werkzeug.serving", "BaseWSGIServer", "__init__", 3, "app"),
    ("wsgiref.simple_server", "WSGIServer", "set_app", 1, "application"),
)


@cache
def install() -> None:
    """Wrap the applications of all servers that this process has imported or will import."""
    _provider.load()
    _follow()
    for name, worker in _GUNICORN:
        when_imported("wsgi", f"gunicorn.workers.{name}", partial(_wrap_worker, worker))
    for library, cls, method, position, keyword in _SERVERS:
        when_imported("wsgi", library, partial(_wrap_server, cls, method, position, keyword))


def _wrap_worker(worker: str, module: ModuleType) -> list[str]:
    return [wrap_attribute(getattr(module, worker), "load_wsgi", "wsgi", wrap)]


def _wrap_server(cls: str, method: str, position: int, keyword: str, module: ModuleType) -> list[str]:
    return [wrap_argument(getattr(module, cls), method, position, keyword, wrap)]


@cache
def _follow() -> None:
    """Note the routes of frameworks too. Applications may be wrapped without `install`."""
    try:
        _provider.load()
        routes.follow("wsgi", *_probes)
    except UsdtkitError as error:
        warn(f"not instrumented: wsgi: {describe(error)}")


def wrap(application: Application) -> Application:
    """Return the application with probes. They cost a request two comparisons while nobody traces."""
    if hasattr(application, _WRAPPED):
        return application
    _follow()
    start, done = _probes

    def traced(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not (start.enabled or done.enabled) or being_served() is not None:
            return application(environ, start_response)
        return _handle(application, environ, start_response)

    setattr(traced, _WRAPPED, application)
    return traced


def _handle(application: Application, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    served = Served(_probes, *_request_of(environ))

    def start(status: str, *more: Any, **keywords: Any) -> Any:
        code = status[:3] if isinstance(status, str) else ""
        served.status = int(code) if code.isascii() and code.isdecimal() else 0
        caught = more[1] if len(more) > 1 else keywords.get("exc_info")
        if isinstance(caught, tuple) and len(caught) == 3:
            served.handled = served.handled or caught[1]
        # Read now, because Flask removes it from there when the request is done.
        ask(lambda: _note_route(environ, served), None)
        return start_response(status, *more, **keywords)

    served.enter()
    try:
        body = application(environ, start)
    except BaseException as error:
        ask(lambda: _note_route(environ, served), None)
        served.raised = error
        served.end()
        raise
    finally:
        served.leave()
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _end_at_close(served, body)
    return _SizedBody(served, body) if hasattr(body, "__len__") else _Body(served, body)


def _note_route(environ: dict[str, Any], served: Served) -> None:
    """Note where the application is mounted, and Flask's route, which no framework reports."""
    served.prefix = str(environ.get("SCRIPT_NAME", ""))
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    served.route = served.route or str(getattr(rule, "rule", ""))


def _end_at_close(served: Served, file: Iterable[bytes]) -> Iterable[bytes]:
    """Return the server's own wrapper of a file, which it knows by its type, and sends in a way of its own."""
    close = getattr(file, "close", None)

    def closed() -> None:
        try:
            if close is not None:
                close()
        finally:
            served.end()

    try:
        file.close = closed  # type: ignore[attr-defined]
    except AttributeError:  # nobody will say when it has been sent
        served.end()
    return file


class _Body:
    """The body of a traced request, which the server iterates over and closes."""

    def __init__(self, served: Served, body: Any) -> None:
        self._served, self._body, self._pieces = served, body, body

    # A server may do all of this with a body, so each is passed on to the application's own.

    def __iter__(self) -> Iterator[bytes]:
        self._pieces = iter(self._body)
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)  # type: ignore[no-any-return]
        except StopIteration:
            raise
        except BaseException as error:
            self._served.raised = error
            raise

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
            self._served.end()


class _SizedBody(_Body):
    """One that has a length; a server sends the length of a body that has one piece."""

    def __len__(self) -> int:
        return len(self._body)


def _request_of(environ: dict[str, Any]) -> tuple[str, str]:
    """Return method and path. WSGI decodes the path as Latin-1; this decodes the same bytes as UTF-8."""
    method = environ.get("REQUEST_METHOD", "")
    parts = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    path = "".join(part for part in parts if isinstance(part, str))
    path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    shown = ask(lambda: redaction.path(path, environ.get("QUERY_STRING", "")), path)
    return method if isinstance(method, str) else "", shown
