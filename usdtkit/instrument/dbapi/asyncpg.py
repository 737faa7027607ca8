"""asyncpg, a driver of PostgreSQL with methods of its own.

Input: its classes, which are written in Python above a protocol in C. Output: all that connections, prepared statements
and cursors send. A method that returns rows fires both a query and the rows that were fetched. BEGIN and SAVEPOINT are
queries, as asyncpg sends them by its own `execute`; what ends a transaction is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from usdtkit.instrument.dbapi.operations import connect, fetch, query, transaction
from usdtkit.instrument.measuring import Operation, Place, outermost, wrap_all

_SYSTEM = "postgresql"


def _one(row: Any) -> int:
    return row is not None


_COUNTS: dict[str, Callable[[Any], int]] = {"fetch": len, "fetchmany": len, "fetchrow": _one, "fetchval": _one}


def _of_status(_: Any, status: Any) -> int:
    """Return N of a status such as "INSERT 0 N" or "COPY N"."""
    last = status.split()[-1] if isinstance(status, str) and status else ""
    return int(last) if last.isdigit() else -1


def _connection(owner: Any) -> Any:
    """Return the connection itself, and not what a pool lends in its place."""
    connection = getattr(owner, "_connection", owner)
    return getattr(connection, "_con", connection)


def _sent(operation: Operation) -> Operation:
    return operation._replace(begin=outermost(operation.begin, _connection))


def _counted(count: Callable[[Any], int]) -> Callable[[Any, Any], int]:
    return lambda _, result: count(result)


def _wrap(module: ModuleType) -> list[str]:
    library: Any = module
    connection, statement = library.Connection, library.prepared_stmt.PreparedStatement
    places = [
        Place(connection, "execute", _sent(query(_SYSTEM, _text, _of_status))),
        Place(connection, "executemany", _sent(query(_SYSTEM, _text, lambda *_: -1))),
        Place(statement, "executemany", query(_SYSTEM, _prepared, lambda *_: -1), awaits=True),
        Place(connection, "_copy_in", query(_SYSTEM, _copy, _of_status)),
        Place(connection, "copy_records_to_table", query(_SYSTEM, _copy_of_records, _of_status)),
        Place(connection, "_copy_out", query(_SYSTEM, _copy, _of_status)),
    ]
    for name, count in _COUNTS.items():
        places += [
            Place(connection, name, query(_SYSTEM, _text, _counted(count))),
            Place(connection, name, fetch(_SYSTEM, name, count)),
            Place(statement, name, query(_SYSTEM, _prepared, _counted(count)), awaits=True),
            Place(statement, name, fetch(_SYSTEM, name, count), awaits=True),
        ]
    cursor = library.cursor
    for name in ("_bind", "_bind_exec"):  # the first thing that a cursor sends
        places.append(Place(cursor.BaseCursor, name, query(_SYSTEM, _of_cursor, lambda *_: -1)))
    for name in ("_bind_exec", "_exec"):  # these return rows, whichever method has asked for them
        places.append(Place(cursor.BaseCursor, name, fetch(_SYSTEM, "cursor", len)))
    for name, how in (("commit", _commit), ("rollback", _rollback), ("__aexit__", _exit)):
        places.append(Place(library.transaction.Transaction, name, _sent(transaction(_SYSTEM, how)), awaits=True))
    places.append(Place(library.connect_utils, "_connect", connect(_SYSTEM, _where)))
    return wrap_all(places)


def _text(_: Any, query: Any, *parameters: Any, **__: Any) -> tuple[Any, Any]:
    return query, parameters or None


def _copy(_: Any, query: Any, *__: Any, **___: Any) -> tuple[Any, Any]:
    return query, None


def _copy_of_records(_: Any, table: str, *__: Any, **___: Any) -> tuple[Any, Any]:
    return f"COPY {table} FROM STDIN", None  # the method composes the text only on its way


def _prepared(statement: Any, *parameters: Any, **__: Any) -> tuple[Any, Any]:
    return statement._query, parameters or None


def _of_cursor(cursor: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
    return cursor._query, cursor._args or None


def _commit(block: Any, *_: Any) -> str:
    return "release" if block._nested else "commit"


def _rollback(block: Any, *_: Any) -> str:
    return "rollback to" if block._nested else "rollback"


def _exit(block: Any, error: Any, *_: Any) -> str:
    return _commit(block) if error is None else _rollback(block)


def _where(connection: Any, *_: Any, **keywords: Any) -> tuple[Any, Any]:
    if connection is None:
        url = urlsplit(keywords.get("dsn") or "")
        return keywords.get("host") or url.hostname, keywords.get("database") or url.path.lstrip("/")
    address = connection._addr
    host = os.path.dirname(address) if isinstance(address, str) else address[0]  # noqa: PTH120 it is that of a socket
    return host, connection._params.database


LIBRARIES = {"asyncpg": _wrap}
