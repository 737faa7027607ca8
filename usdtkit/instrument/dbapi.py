"""Queries by DB-API cursors: dbapi:query__start and dbapi:query__done.

In: cursors of sqlite3, psycopg and PyMySQL, where `install` finds them, or any cursor class, by `cursor_class`. Out:
the system, the query's text as it was given (without its parameters), rows as the driver counts them (-1: it does not
know), nanoseconds, and the name of the exception or "".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("dbapi")
_start = _provider.probe("query__start", doc="A query is sent.", system="str", query="str")
_done = _provider.probe(
    "query__done",
    doc="It is done; rows is -1 where the driver does not know.",
    system="str",
    query="str",
    rows="i64",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_METHODS = ("execute", "executemany")


@cache
def install() -> None:
    """Publish the queries of the drivers that this process has or will import, and of connections made from then on."""
    _provider.load()
    when_imported("sqlite3", _sqlite)
    when_imported("psycopg", lambda module: _patch("postgresql", module.Cursor, _traced))
    when_imported("psycopg", lambda module: _patch("postgresql", module.AsyncCursor, _traced_async))
    when_imported("pymysql.cursors", lambda module: _patch("mysql", module.Cursor, _traced))


def cursor_class(base: type, system: str) -> type:
    """A subclass of a driver's cursor class with probes, for drivers that let one choose it."""
    methods = {name: _traced(system)(getattr(base, name)) for name in _METHODS}
    return type(base.__name__, (base,), {"__slots__": (), **methods})


def _patch(system: str, cls: type, traced: Callable[[str], Callable[[Any], Any]]) -> None:
    """Of a class written in Python: only while somebody traces."""
    for name in _METHODS:
        watcher.watch(watcher.replaced(cls, name, traced(system)), _start, _done)


def _traced(system: str) -> Callable[[Any], Any]:
    def make(execute: Any) -> Any:
        @wraps(execute)
        def traced(cursor: Any, *args: Any, **keywords: Any) -> Any:
            if not (_start.enabled or _done.enabled):
                return execute(cursor, *args, **keywords)
            with _running(system, cursor, args, keywords):
                return execute(cursor, *args, **keywords)

        return traced

    return make


def _traced_async(system: str) -> Callable[[Any], Any]:
    def make(execute: Any) -> Any:
        @wraps(execute)
        async def traced(cursor: Any, *args: Any, **keywords: Any) -> Any:
            with _running(system, cursor, args, keywords):
                return await execute(cursor, *args, **keywords)

        return traced

    return make


@contextmanager
def _running(system: str, cursor: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Iterator[None]:
    """A query that is traced, from its start to its end. It comes first, under whatever name the driver has for it."""
    query = args[0] if args else next(iter(keywords.values()), "")
    _start.lazy(lambda: (system, _text(query)))
    began, error = time.monotonic_ns(), ""
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        latency = time.monotonic_ns() - began
        _done.lazy(lambda: (system, _text(query), -1 if error else _rows(cursor), latency, error))


def _text(query: Any) -> str:
    return query.decode("utf-8", "replace") if isinstance(query, bytes) else str(query)


def _rows(cursor: Any) -> int:
    rows = getattr(cursor, "rowcount", -1)
    return rows if isinstance(rows, int) else -1


def _sqlite(module: ModuleType) -> None:
    """Its classes are C's: connections are made of a subclass, unless the caller has one of his own."""
    traced_cursor = cursor_class(module.Cursor, "sqlite")

    class Connection(module.Connection):  # type: ignore[misc,name-defined]
        def cursor(self, factory: Any = traced_cursor) -> Any:
            return super().cursor(factory)

        # The short ways, which do not ask `cursor` in C.
        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

    original = module.dbapi2.connect

    @wraps(original)
    def connect(*args: Any, **keywords: Any) -> Any:
        if len(args) < 6:  # the sixth is the factory
            keywords.setdefault("factory", Connection)
        return original(*args, **keywords)

    for place in (module, module.dbapi2):
        setattr(place, "connect", connect)  # noqa: B010 a module's attribute, which its type does not know
