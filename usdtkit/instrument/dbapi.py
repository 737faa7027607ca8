"""Queries of DB-API cursors: dbapi:query__start and dbapi:query__done.

Input: the cursors of sqlite3, psycopg and PyMySQL, which `install` replaces, or any cursor class given to
`cursor_class`. Output: the database system, the text of the query without its parameters, the number of rows as the
driver counts them (-1 if it does not know), nanoseconds, and the name of the exception or "".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction, watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("dbapi")
_start = _provider.probe("query__start", doc="A query is sent.", system="str", query="str")
_done = _provider.probe(
    "query__done",
    doc="A query has ended; rows is -1 if the driver does not know their number.",
    system="str",
    query="str",
    rows="i64",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_METHODS = ("execute", "executemany")


@cache
def install() -> None:
    """Publish the queries of the drivers that this process has imported or will import. A second call does nothing.

    With sqlite3 only connections that are made from then on have probes.
    """
    _provider.load()
    when_imported("dbapi", "sqlite3", _sqlite)
    when_imported("dbapi", "psycopg", lambda module: _patch("postgresql", module.Cursor, _traced))
    when_imported("dbapi", "psycopg", lambda module: _patch("postgresql", module.AsyncCursor, _traced_async))
    when_imported("dbapi", "pymysql.cursors", lambda module: _patch("mysql", module.Cursor, _traced))


def cursor_class(base: type, system: str) -> type:
    """Return a subclass of a driver's cursor class with probes, for drivers whose connections take a cursor class."""
    methods = {name: _traced(system)(getattr(base, name)) for name in _METHODS}
    return type(base.__name__, (base,), {"__slots__": (), **methods})


def _patch(system: str, cls: type, traced: Callable[[str], Callable[[Any], Any]]) -> Iterator[str]:
    """Replace the methods of a cursor class that is written in Python, while somebody traces. Returns their names."""
    for name in _METHODS:
        watcher.watch(watcher.replaced(cls, name, traced(system)), _start, _done)
        yield f"{cls.__name__}.{name}"


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
    """Trace a query from its start to its end. It is the first argument, whatever the driver calls that."""
    query, parameters, *_ = (*args, *keywords.values(), "", None)

    def text() -> str:
        return redaction.statement(query, parameters)

    _start.lazy(lambda: (system, text()))
    began, error = time.monotonic_ns(), ""
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        latency = time.monotonic_ns() - began
        _done.lazy(lambda: (system, text(), -1 if error else _rows(cursor), latency, error))


def _rows(cursor: Any) -> int:
    rows = getattr(cursor, "rowcount", -1)
    return rows if isinstance(rows, int) else -1


def _sqlite(module: ModuleType) -> list[str]:
    """Make connections of a subclass, because the classes are written in C, unless the caller gives a factory."""
    traced_cursor = cursor_class(module.Cursor, "sqlite")

    class Connection(module.Connection):  # type: ignore[misc,name-defined]
        def cursor(self, factory: Any = traced_cursor) -> Any:
            return super().cursor(factory)

        # In C these two do not call `cursor`.
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
        setattr(place, "connect", connect)  # noqa: B010 mypy does not know the module's attribute
    return ["connect"]
