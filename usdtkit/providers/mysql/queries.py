"""Queries of MySQL and MariaDB: pairs from the arrival of a command to its end in the server.

Input: a session. Output: pairs that keep `command` and `query`, rows, and latencies in groups. dispatch_command runs
each command of a client, and its call is the span, whatever the protocol. The text of a prepared statement is learnt
within that call: from the statement itself where its layout is known, else from general_log_write. Replication applies
statements outside of dispatch_command. A server without this function is traced by its probes (MySQL up to 5.7, if it
was built with DTrace).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any

from usdtkit.errors import NotFoundError, UnsupportedError
from usdtkit.model import Function
from usdtkit.providers import sql, statements
from usdtkit.providers.mysql import versions
from usdtkit.providers.mysql.versions import Dispatch, Layout
from usdtkit.providers.servers import Programs, program_files, running
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.trace import Expression, FunctionSpec, Pair, Session, Source, Sources, arg, buffer, cstr, deref, tid, usdt

DIALECT: sql.Dialect = "mysql"
"""The dialect of SQL that the server speaks."""
FIELDS: tuple[str, ...] = ("latency", "query", "command", "error")
"""What `describe` needs of a query, as names for `emit`."""
NAME_SIZE = 64
_SEARCHED = (
    *versions.MARIADB.symbols,
    *versions.MARIADB.log.symbols,
    *versions.MYSQL.symbols,
    *versions.MYSQL.log.symbols,
    *versions.EXECUTE,
    *versions.EXEC_CORE,
    *versions.APPLY_QUERY,
    *versions.APPLY_ROWS,
)
_NULL: Expression = tid * 0  # a pointer; a bare number would be that of an argument


def servers() -> list[int]:
    """The MySQL and MariaDB servers that run here. NotFoundError if there is none, PrivilegeError as `running`."""
    return running(*versions.SERVERS)


def queries(
    session: Session,
    program: str | os.PathLike[str] | None = None,
    *,
    size: int = QUERY_SIZE,
    steps: bool = False,
    nested: bool = False,
) -> Sources[Pair]:
    """The queries of the servers that a session traces, from their arrival to their end.

    `query` is the first `size` bytes of the text, as bytes, because a NUL byte does not end a statement, and None where
    the text cannot be had; `shown` takes it. Servers that are traced by probes give it as a string. `command` is a
    number, of which COMMANDS has the name. `error` is the number of an error or 0; `user` and `database` are strings.
    `steps` adds the commands that only prepare a statement, or fetch rows from a cursor. `nested` adds the statements
    within procedures, functions, triggers and events, each of which is also a part of the statement that led to it.
    `program` names the server's program if no server runs yet.

    Raises NotFoundError if there is no server, or one that has neither the functions nor the probes.
    """
    try:
        files = program_files(session, versions.SERVERS, program)
    except NotFoundError:
        session.missing += [
            FunctionSpec(path, (*versions.MARIADB.symbols, *versions.MYSQL.symbols)) for path in versions.PROGRAMS
        ]
        raise
    programs = Programs(session, files, sought=versions.PROGRAMS if program is None else files, functions=_SEARCHED)
    if nested and not session.offline:
        _remark_without_nested(session, programs, files)
    pairs: list[Pair] = []
    if programs.files:
        pairs += _commands(session, programs, size, steps=steps, nested=nested)
    pairs += [pair for path in files if path not in programs.files for pair in _by_probes(session, path, size)]
    if pairs:
        return Sources(*pairs)
    raise NotFoundError(
        f"{' and '.join(files)}: neither the probes nor the functions of mysql",
        hint="usdtkit list -p PID shows its probes; a stripped server needs its debug symbols",
    )


def _remark_without_nested(session: Session, programs: Programs, files: Sequence[str]) -> None:
    """Say which programs do not show the statements within procedures, which only the layout of a THD leads to."""
    for path in files:
        if not any(map(versions.layout_of, programs.functions(versions.MARIADB.symbols, path))):
            session.remark(f"{path}: statements within procedures are not shown; only MariaDB says where they are")


def shown(query: str | bytes | None, *, raw: bool = False) -> str | None:
    """The text of a query with "?" for each literal, or with `raw` as the client sent it."""
    return sql.shown(query, DIALECT, raw=raw)


def describe(event: Any, *, raw: bool = False) -> Mapping[str, Any]:
    """The row of a query: the fields of its event, with its text as `shown` gives it, and the name of its command.

    `error` is the server's number of the error, as text; None if there was none, or it is not known.
    """
    command = versions.COMMANDS.get(event.command, str(event.command))
    error = str(event.error) if event.error else None
    return {**event._asdict(), "query": shown(event.query, raw=raw), "command": command, "error": error}


def latencies(queries: Sources[Source], by: Label, *, raw: bool = False) -> LatencyGroups:
    """Sum up the latencies of queries by statement (with `raw` as it was sent), kind, pid, user or database.

    The kernel sums up, and `flush` takes the groups. UnsupportedError if `by` is "user" or "database", and no server
    that runs now lets them be found.
    """
    if by != "user" and by != "database":
        return statements.summed(queries, by, DIALECT, raw=raw)
    pairs = [pair for pair in queries if isinstance(pair, Pair) and pair.resolved.places]
    if not any("thd" in pair.keeps or by in pair.keeps for pair in pairs):
        raise UnsupportedError(
            f"where this server keeps the {by} of a connection is not known",
            hint="it is for MariaDB that exports thd_user_name, and MySQL 5.7 with probes; try --by kind",
        )
    return statements.summed(queries, by, DIALECT)


def _commands(session: Session, programs: Programs, size: int, *, steps: bool, nested: bool) -> list[Pair]:
    """The commands of clients, and what servers run besides, by the kinds of their programs."""
    found = (versions.layout_of(function) for function in programs.functions(versions.MARIADB.symbols))
    layouts = list(dict.fromkeys(layout for layout in found if layout)) or [versions.USUAL_LAYOUT]
    pairs: list[Pair] = []
    for layout in layouts:
        only = _Only(layout)
        pairs.append(_commands_of(session, programs, versions.MARIADB, layout, only, size))
    others = _Only(*layouts, others=True)
    pairs += [
        _commands_of(session, programs, versions.MARIADB, None, others, size),
        _commands_of(session, programs, versions.MYSQL, None, None, size),
    ]
    wanted = versions.EXECUTIONS + (versions.STEPS if steps else ())
    pairs = [pair.where(reduce(or_, (pair.kept("command") == command for command in wanted))) for pair in pairs]
    applied = session.pair(programs.entries(versions.APPLY_QUERY), keep={"query": buffer(3, arg(4).cast("u32"), size)})
    pairs.append(_with_names(applied, None, command=versions.APPLY))
    rows = session.source(programs.entries(versions.APPLY_ROWS))
    rows.count_unseen("replicated row event", "changes of rows have no statement")
    for layout in layouts if nested else ():
        text = buffer(deref(2, layout.query), deref(2, layout.query + 8), size)
        entries = programs.entries(versions.EXEC_CORE, _Only(layout))
        inner = session.pair(entries, keep={"query": text, "thd": arg(2)})
        pairs.append(_with_names(inner, layout, command=versions.NESTED))
    return pairs


def _commands_of(
    session: Session,
    programs: Programs,
    dispatch: Dispatch,
    layout: Layout | None,
    only: Callable[[Function], bool] | None,
    size: int,
) -> Pair:
    """All commands of clients, in programs that have this dispatch_command and, if it is known, this layout."""
    command = arg(dispatch.command).cast("u32")
    query: Expression = arg(dispatch.query)
    length: Expression = arg(dispatch.length) if dispatch.length else deref(query, 8, "u32")
    if not dispatch.length:
        query = deref(query)
    # The packets of other commands hold no text.
    has_text = (command == versions.COM_QUERY) | (command == versions.COM_STMT_PREPARE)
    keep = {"command": command, "query": buffer(query * has_text, length, size)}
    if layout is not None:
        keep["thd"] = arg(dispatch.thd)
    commands = session.pair(programs.entries(dispatch.symbols, only), keep=keep)
    if layout is not None:
        executions = session.source(programs.entries(versions.EXECUTE, only))
        text = buffer(deref(1, layout.query), deref(1, layout.query + 8), size)
    else:
        log = dispatch.log
        logged = session.source(programs.entries(log.symbols, only))
        executions = logged.where(arg(log.command).cast("u32") == versions.COM_STMT_EXECUTE)
        text = buffer(log.query, arg(log.query + 1), size)
    return _with_names(commands.fill(executions, query=text), layout)


def _with_names(pair: Pair, layout: Layout | None, command: int | None = None) -> Pair:
    """The pair with what can be asked for by name; what is not known is None."""
    user = database = _NULL
    error: Expression | int = 0
    if layout is not None:
        thd = pair.kept("thd")
        user = deref(deref(thd, layout.security), layout.user)
        database = deref(thd, layout.database)
        error = deref(deref(thd, layout.diagnostics), layout.error, "u32")
    named: dict[str, Expression | int] = {
        "user": cstr(user, NAME_SIZE),
        "database": cstr(database, NAME_SIZE),
        "error": error,
    }
    if command is not None:
        named["command"] = command
    return pair.derive("command", "query", **named)


class _Only:
    """Whether a program has one of these layouts, or with `others`, whether it has none of them."""

    def __init__(self, *layouts: Layout, others: bool = False) -> None:
        self._layouts, self._others = layouts, others

    def __call__(self, function: Function) -> bool:
        return (versions.layout_of(function) in self._layouts) != self._others


def _by_probes(session: Session, program: str, size: int) -> list[Pair]:
    """The queries of a program that has the probes of MySQL 5.7; none if it does not."""
    keep = {"query": cstr("query", size), **{name: cstr(name, NAME_SIZE) for name in ("database", "user")}}
    try:
        pair = session.pair(usdt("mysql:query__start", program), usdt("mysql:query__done", program), keep=keep)
    except NotFoundError:
        return []
    with suppress(NotFoundError):
        commands = session.usdt("mysql:command__start", program)
        executions = commands.where(arg("command") == versions.COM_STMT_EXECUTE)
        executions.count_unseen("prepared execution", f"{program} has no symbol dispatch_command")
    return [pair.derive("query", "user", "database", command=versions.COM_QUERY, error=0)]
