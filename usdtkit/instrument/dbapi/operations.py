"""The probes of SQL databases, and when they fire.

Input: the calls of a driver, from the modules beside this one, which say where the text of a query and the number of
its rows are. Output: the probes below. None shows a parameter, a user or a password. A fetch fires once a call, with
the rows that it has returned; a step of an iteration is a call. So the sum of `rows` is what the program has got.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.measuring import Done, Operation
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = [
    "called",
    "connect",
    "fetch",
    "in_transaction",
    "provider",
    "query",
    "rows_of_cursor",
    "text_and_parameters",
    "transaction",
]

provider = Provider("dbapi")
_start = provider.probe("query__start", doc="A query is sent.", system="str", query="str")
_done = provider.probe(
    "query__done",
    doc="A query has ended; rows is -1 if the driver does not know their number.",
    system="str",
    query="str",
    rows="i64",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_connect = provider.probe(
    "connect",
    doc="A connection has been opened, or could not be.",
    system="str",
    host="str",
    database="str",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_transaction = provider.probe(
    "transaction",
    doc="A transaction has ended, by commit or rollback, or a part of it, by release or rollback to.",
    system="str",
    action="str",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
_fetched = provider.probe(
    "rows__fetched",
    doc="The program has fetched rows.",
    system="str",
    method="str",
    rows="u64",
    latency_ns=argument("u64", unit="ns"),
    error="str",
)
Find = Callable[..., tuple[Any, Any]]
_END_OF_ROWS = ("StopIteration", "StopAsyncIteration")


def rows_of_cursor(cursor: Any, result: Any) -> int:
    """Return the row count of the cursor that a call has returned, or else of the one that it was called of."""
    counted = getattr(result, "rowcount", None)
    rows = getattr(cursor, "rowcount", -1) if counted is None else counted
    return rows if isinstance(rows, int) and rows < 2**63 else -1  # PyMySQL has 2**64 - 1 for not known


def text_and_parameters(_: Any, *args: Any, **keywords: Any) -> tuple[Any, Any]:
    """Return the query and its parameters: they are the first two arguments, whatever the driver calls them."""
    query, parameters, *_ = (*args, *keywords.values(), "", None)
    return query, parameters


def called(_: Any, name: str, parameters: Any = None, *__: Any) -> tuple[Any, Any]:
    """Return the query of a method that calls a procedure by its name."""
    return f"CALL {name}", parameters


def query(
    system: str,
    text: Callable[..., tuple[Any, Any]] = text_and_parameters,
    rows: Callable[[Any, Any], int] = rows_of_cursor,
) -> Operation:
    """Fire the two ends of a query. text(self, …) finds it and its parameters, rows(self, result) counts its rows."""

    def begin(self: Any, *args: Any, **keywords: Any) -> Done:
        found: list[str] = []

        def statement() -> str:
            if not found:
                found.append(redaction.statement(*text(self, *args, **keywords)))
            return found[0]

        _start.lazy(lambda: (system, statement()))
        return lambda result, error, latency: _done.lazy(
            lambda: (system, statement(), -1 if error else rows(self, result), latency, error)
        )

    return Operation(begin, (_start, _done))


def fetch(system: str, method: str, count: Callable[[Any], int] | None = None) -> Operation:
    """Fire when rows have been fetched. count(result) is their number; by default the method's name says how."""
    count = count or (len if method in ("fetchall", "fetchmany") else _one)

    def done(result: Any, error: str, latency: int) -> None:
        said = "" if error in _END_OF_ROWS else error
        _fetched.lazy(lambda: (system, method, 0 if error else count(result), latency, said))

    return Operation(lambda *_, **__: done, (_fetched,))


def _one(row: Any) -> int:
    return row is not None


def connect(system: str, where: Callable[..., tuple[Any, Any]]) -> Operation:
    """Fire when a connection has been opened. where(result or None, …) returns its host and database."""

    def begin(*args: Any, **keywords: Any) -> Done:
        def done(result: Any, error: str, latency: int) -> None:
            host, database = ask(lambda: where(result, *args, **keywords), ("", ""))
            _connect.lazy(lambda: (system, _text(host), _text(database), latency, error))

        return done

    return Operation(begin, (_connect,))


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def transaction(system: str, action: Callable[..., str]) -> Operation:
    """Fire when a transaction has ended. action(self, …) says how, or returns "" if there is none to end."""

    def begin(*args: Any, **keywords: Any) -> Done | None:
        how = action(*args, **keywords)
        return (lambda _, error, latency: _transaction(system, how, latency, error)) if how else None

    return Operation(begin, (_transaction,))


def in_transaction(how: str, active: Callable[[Any], bool] = lambda connection: True) -> Callable[..., str]:
    """Return an action for `transaction`: `how`, if active(connection)."""
    return lambda connection, *_, **__: how if active(connection) else ""
