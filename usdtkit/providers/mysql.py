"""Queries of MySQL and MariaDB servers: their text, and how long each of them takes.

    from usdtkit import trace
    from usdtkit.providers import mysql
    from usdtkit.trace import latency, ms

    with trace.Session(pid=4711) as session:
        mysql.queries(session).where(latency > ms(5)).emit("query", "latency")
        event = next(iter(session))
        print(mysql.shown(event.query), event.latency_ns > 5_000_000)

Input: a session. Output: pairs from the arrival of a query to its end, measured in the server. Servers with probes of
their own (MySQL up to 5.7, if it was built with DTrace) are read by these, all others by dispatch_command, the
function that runs each command of a client. `postgresql` offers the same for PostgreSQL.
"""

from __future__ import annotations

import os
from typing import Any

from usdtkit.errors import NotFoundError, UnsupportedError
from usdtkit.providers import sql, statements
from usdtkit.providers.servers import program_files, running
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.records import NamedTuple
from usdtkit.trace import Expression, Pair, Session, Source, Sources, arg, buffer, cstr, deref, uprobe, usdt

DIALECT: sql.Dialect = "mysql"
"""The dialect of SQL that the server speaks."""
SERVERS: tuple[str, ...] = ("mysqld", "mariadbd", "mysqld-debug")
"""The file names of the server's program."""
FIELDS: tuple[str, ...] = ("latency", "query")
"""What `describe` needs of a query, as names for `emit`."""
COM_QUERY = 3
NAME_SIZE = 64


class Dispatch(NamedTuple):
    """dispatch_command, as some versions of the server declare it.

    `symbol` is a glob for its mangled name, which tells the declarations apart. `command`, `query` and `length` say
    which arguments, counted from 1, hold the command, the text of a COM_QUERY and the length of that text. If
    `length` is 0, `query` points to a struct that begins with the text's address and its length.
    """

    symbol: str
    command: int
    query: int
    length: int


DISPATCH_COMMAND = (
    # MariaDB, MySQL up to 5.6: (enum_server_command, THD*, char* packet, uint length, …)
    Dispatch("_Z16dispatch_command19enum_server_commandP3THDPcj*", command=1, query=3, length=4),
    # MySQL 5.7 and 8: (THD*, const COM_DATA*, enum_server_command)
    Dispatch("_Z16dispatch_commandP3THDPK8COM_DATA19enum_server_command*", command=3, query=2, length=0),
)


def servers() -> list[int]:
    """The MySQL and MariaDB servers that run here. NotFoundError if there is none, PrivilegeError as `running`."""
    return running(*SERVERS)


def queries(
    session: Session, program: str | os.PathLike[str] | None = None, *, size: int = QUERY_SIZE, steps: bool = False
) -> Sources[Pair]:
    """The queries of the servers that a session traces, from their arrival to their end.

    `query` is the first `size` bytes of the text. Servers with probes give it as a string, and also keep `database` and
    `user`. All others give it as bytes, because a NUL byte does not end a statement for them; `shown` takes either.
    `program` names the server's program if no server runs yet. Prepared statements of the binary protocol, and
    the statements within a stored procedure, are not seen.

    Raises NotFoundError if there is no server, or one that has neither the probes nor the function.
    """
    programs = program_files(session, SERVERS, program)
    if pairs := [pair for path in programs for pair in _queries_of(session, path, size)]:
        return Sources(*pairs)
    raise NotFoundError(
        f"{' and '.join(programs)}: neither the probes nor the functions of mysql",
        hint="usdtkit list -p PID shows its probes; a stripped server needs its debug symbols",
    )


def shown(query: str | bytes | None, *, raw: bool = False) -> str | None:
    """The text of a query with "?" for each literal, or with `raw` as the client sent it."""
    return sql.shown(query, DIALECT, raw=raw)


def describe(event: Any, *, raw: bool = False) -> dict[str, Any]:
    """The row of a query: the fields of its event, with its text as `shown` gives it."""
    return {**event._asdict(), "query": shown(event.query, raw=raw)}


def latencies(queries: Sources[Source], by: Label, *, raw: bool = False) -> LatencyGroups:
    """Sum up the latencies of queries by statement (with `raw` as it was sent), kind, pid, user or database.

    The kernel sums up, and `flush` takes the groups. UnsupportedError if `by` is "user" or "database" and the server
    does not say it, as only the probes do.
    """
    if by != "user" and by != "database":
        return statements.summed(queries, by, DIALECT, raw=raw)
    if any(isinstance(pair, Pair) and by not in pair.keeps for pair in queries):
        raise UnsupportedError(
            f"this server does not report the {by} of a query",
            hint="only builds with the probes of MySQL 5.7 do; try --by kind",
        )
    return statements.summed(queries, by, DIALECT)


def _queries_of(session: Session, program: str, size: int) -> list[Pair]:
    """The queries of one program: by its probes, else by dispatch_command; none if it has neither."""
    try:
        names = {name: cstr(name, NAME_SIZE) for name in ("database", "user")}
        start, done = usdt("mysql:query__start", program), usdt("mysql:query__done", program)
        return [session.pair(start, done, keep={"query": cstr("query", size), **names})]
    except NotFoundError:
        pass
    for dispatch in DISPATCH_COMMAND:
        keep = {"command": arg(dispatch.command).cast("u32"), "query": _packet(dispatch, size)}
        try:
            commands = session.pair(uprobe(program, dispatch.symbol), keep=keep)
        except NotFoundError:
            continue
        return [commands.where(commands.kept("command") == COM_QUERY)]
    return []


def _packet(dispatch: Dispatch, size: int) -> Expression:
    """The text of a query where dispatch_command begins, by its length."""
    query = arg(dispatch.query)
    if dispatch.length:
        return buffer(query, arg(dispatch.length), size)
    return buffer(deref(query), deref(query, 8, "u32"), size)
