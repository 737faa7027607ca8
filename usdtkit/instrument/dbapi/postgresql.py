"""psycopg 3 and psycopg2, the drivers of PostgreSQL that are called as DB-API says.

Input: their modules. Output: all that their cursors execute, copy, stream and fetch, by any kind of cursor, and the
ends of transactions. In psycopg's pipeline mode a query ends when it has been sent, and its rows are not known.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from usdtkit.instrument.dbapi.operations import (
    called,
    connect,
    fetch,
    in_transaction,
    query,
    text_and_parameters,
    transaction,
)
from usdtkit.instrument.measuring import Place, wrap_all

_SYSTEM = "postgresql"
_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction
_FETCHES = ("fetchone", "fetchmany", "fetchall", "__next__", "__anext__")


def _psycopg(module: ModuleType) -> list[str]:
    places = []
    for prefix in ("", "Async"):
        places += _psycopg_classes(module, prefix)
    # The function of the module is the method as it was when the module was imported.
    return wrap_all([*places, Place(module, "connect", connect(_SYSTEM, _where_of_psycopg(module)))])


def _psycopg_classes(module: Any, prefix: str) -> list[Place]:
    text = _text(lambda: module.sql)
    cursor, server = getattr(module, f"{prefix}Cursor"), getattr(module, f"{prefix}ServerCursor")
    connection, block = getattr(module, f"{prefix}Connection"), getattr(module, f"{prefix}Transaction")
    cursors = cursor, server
    places = [Place(each, name, query(_SYSTEM, text)) for each in cursors for name in ("execute", "executemany")]
    places += [
        Place(cursor, "copy", query(_SYSTEM, text, lambda cursor, _: cursor.rowcount)),
        Place(cursor, "stream", query(_SYSTEM, text, lambda _, rows: rows)),
        Place(cursor, "stream", fetch(_SYSTEM, "stream", lambda rows: rows)),
    ]
    places += [Place(each, name, fetch(_SYSTEM, name)) for each in cursors for name in _FETCHES]
    # Up to psycopg 3.2 this is a generator of the rows.
    if "__next__" not in vars(cursor) and "__anext__" not in vars(cursor):
        name = "__aiter__" if prefix else "__iter__"
        places += [Place(each, name, fetch(_SYSTEM, name, lambda rows: rows)) for each in cursors]
    places += [Place(connection, "connect", connect(_SYSTEM, _where_of_psycopg(module)))]
    for how in ("commit", "rollback"):
        places += [Place(connection, how, transaction(_SYSTEM, in_transaction(how, _psycopg_is_active)))]
    return [*places, Place(block, "__aexit__" if prefix else "__exit__", transaction(_SYSTEM, _exit_of_block))]


def _text(sql: Callable[[], Any]) -> Callable[..., tuple[Any, Any]]:
    """Return a function that finds a query. What a driver's module `sql` composes of parts has a %s for each value."""

    def text_of(part: Any, cursor: Any) -> Any:
        if isinstance(part, (str, bytes)):
            return part
        if isinstance(part, sql().Composed):
            return "".join(text_of(each, cursor) for each in part)
        if isinstance(part, sql().Literal):
            return "%s"
        return part.as_string(cursor) if isinstance(part, sql().Composable) else part

    def text(cursor: Any, *args: Any, **keywords: Any) -> tuple[Any, Any]:
        part, parameters = text_and_parameters(cursor, *args, **keywords)
        if type(part).__name__ == "Template":  # of CPython 3.14: its strings, and a %s for each value between them
            return "%s".join(part.strings), part.values
        return text_of(part, cursor), parameters

    return text


def _where_of_psycopg(module: Any) -> Callable[..., tuple[Any, Any]]:
    def where(connection: Any, *args: Any, **keywords: Any) -> tuple[Any, Any]:
        if connection is not None:
            return connection.info.host, connection.info.dbname
        conninfo = keywords.get("conninfo") or next((each for each in args if isinstance(each, str)), "")
        given = {**module.conninfo.conninfo_to_dict(conninfo), **keywords}
        return given.get("host"), given.get("dbname")

    return where


def _psycopg_is_active(connection: Any) -> bool:
    return bool(connection.pgconn.transaction_status != _IDLE)


def _exit_of_block(block: Any, error: Any, *_: Any) -> str:
    """Say how a block `with connection.transaction():` ends. One inside another ends a savepoint only."""
    ended = error is None and not block.force_rollback
    if block._outer_transaction:
        return "commit" if ended else "rollback"
    return "release" if ended else "rollback to"


def _psycopg2(module: ModuleType) -> list[str]:
    extensions: Any = module.extensions
    cursor, connection = extensions.cursor, extensions.connection
    text = _text(lambda: import_module("psycopg2.sql"))
    places = [Place(cursor, name, query(_SYSTEM, text)) for name in ("execute", "executemany", "copy_expert")]
    places += [Place(cursor, "callproc", query(_SYSTEM, called))]
    places += [Place(cursor, name, fetch(_SYSTEM, name)) for name in _FETCHES]
    places += [Place(connection, "__init__", connect(_SYSTEM, _where_of_psycopg2))]
    for how in ("commit", "rollback"):
        places += [Place(connection, how, transaction(_SYSTEM, in_transaction(how, _psycopg2_is_active)))]
    return wrap_all(places)


def _where_of_psycopg2(_: Any, connection: Any, *args: Any, **keywords: Any) -> tuple[Any, Any]:
    return connection.info.host, connection.info.dbname


def _psycopg2_is_active(connection: Any) -> bool:
    return bool(connection.info.transaction_status != _IDLE)


LIBRARIES = {"psycopg": _psycopg, "psycopg2": _psycopg2}
