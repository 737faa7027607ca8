"""PyMySQL and mysql.connector, the drivers of MySQL and MariaDB.

Input: their modules. Output: all that their cursors execute and fetch, and the ends of transactions, which these
drivers send whether there is a transaction or not. Of methods that call each other only the outermost is seen: an
`executemany` is one query, however many statements the driver makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from usdtkit.instrument.dbapi.operations import called, connect, fetch, in_transaction, query, transaction
from usdtkit.instrument.measuring import Operation, Place, outermost, wrap_all

_SYSTEM = "mysql"
_FETCHES = ("fetchone", "fetchmany", "fetchall", "__next__", "__anext__")


def _outermost(operation: Operation) -> Operation:
    return operation._replace(begin=outermost(operation.begin))


def _of_cursors(module: Any) -> Iterator[Place]:
    """Return the methods of all classes of cursors of a module; each class has those that it defines itself."""
    for cursor in vars(module).values():
        if not (isinstance(cursor, type) and hasattr(cursor, "fetchall") and cursor.__module__ == module.__name__):
            continue
        for name in ("execute", "executemany"):
            yield Place(cursor, name, _outermost(query(_SYSTEM)))
        yield Place(cursor, "callproc", _outermost(query(_SYSTEM, called)))
        for name in _FETCHES:
            yield Place(cursor, name, _outermost(fetch(_SYSTEM, name)))


def _of_connection(connection: Any, opens: str) -> Iterator[Place]:
    yield Place(connection, opens, connect(_SYSTEM, _where))
    for how in ("commit", "rollback"):
        yield Place(connection, how, transaction(_SYSTEM, in_transaction(how)))


def _where(_: Any, connection: Any, *__: Any, **___: Any) -> tuple[Any, Any]:
    host = getattr(connection, "_unix_socket", "") or getattr(connection, "unix_socket", "")
    host = host or getattr(connection, "host", "") or getattr(connection, "_host", "")
    database = getattr(connection, "db", "") or getattr(connection, "_database", "")
    return host, database


def _pymysql(module: ModuleType) -> list[str]:
    return wrap_all(_of_cursors(module))


def _pymysql_connections(module: Any) -> list[str]:
    return wrap_all(_of_connection(module.Connection, "connect"))


def _connector(module: Any) -> list[str]:
    return wrap_all(_of_cursors(module))


def _connector_connections(module: Any) -> list[str]:
    classes = ("MySQLConnection", "CMySQLConnection")
    found = [getattr(module, name) for name in classes if getattr(module, name, None)]
    return [name for each in found for name in wrap_all(_of_connection(each, "_open_connection"))]


LIBRARIES = {
    "pymysql.cursors": _pymysql,
    "pymysql.connections": _pymysql_connections,
    "mysql.connector.cursor": _connector,
    "mysql.connector.connection": _connector_connections,
    "mysql.connector.cursor_cext": _connector,
    "mysql.connector.connection_cext": _connector_connections,
    "mysql.connector.aio.cursor": _connector,
    "mysql.connector.aio.connection": _connector_connections,
}
