"""Queries of PostgreSQL in both protocols: what the server does for each of them, from its arrival to its answer.

Input: a session. Output: sources whose hits are the ends of queries, rows of their events, and latencies in groups.
`work` finds where queries begin and end.
"""

from __future__ import annotations

from typing import Any

from usdtkit.errors import NotFoundError
from usdtkit.providers import statements
from usdtkit.providers.postgresql.backends import DIALECT, Backend, Program, backend, programs, shown
from usdtkit.providers.postgresql.work import COMMANDS, QUERY, Work
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.trace import Session, Source, Sources

FIELDS: tuple[str, ...] = ("latency", "command", "error", "query")
"""What `queries` offer to `emit`, and `describe` needs."""


def queries(
    session: Session, program: Program = None, *, size: int = QUERY_SIZE, steps: bool = False, parts: bool = False
) -> Sources[Source]:
    """The queries of the servers that a session traces, each when the server is done with it.

    They offer `latency`, the first `size` bytes of the text as `query`, and `command` and `error`, which `describe`
    names. The latency is all that the server does for the query: it parses, binds, plans, executes and commits, in as
    many messages as the client sends. With `parts`, they offer the time of each of PARTS, whose sum it is. `steps` adds
    statements that were only prepared. `program` names the server's program if no server runs yet.

    Raises NotFoundError if there is no server, or one whose functions are not found; UsageError for the process of a
    postmaster.
    """
    files = programs(session, program)
    work = Work(session, size, parts=parts)
    try:
        ends = [end for path in files for end in work.follow(path)]
    except NotFoundError as error:
        raise NotFoundError(
            f"{' and '.join(files)}: neither the probes nor the functions of postgres", hint=error.hint
        ) from None
    return Sources(*(ends if steps else [end.where((work.step >= QUERY) | (work.error != 0)) for end in ends]))


def describe(event: Any, *, raw: bool = False) -> dict[str, Any]:
    """The row of a query that was sent with FIELDS: its text as `shown` gives it, the name of its command, and the
    SQLSTATE of the error that ended it, or None."""
    row: dict[str, Any] = event._asdict()
    error = event.error.to_bytes(8, "little").rstrip(b"\0").decode(errors="replace") or None
    return {**row, "query": shown(event.query, raw=raw), "command": COMMANDS[event.command], "error": error}


def latencies(queries: Sources[Source], by: Label, *, raw: bool = False) -> LatencyGroups:
    """Sum up the latencies of queries by statement (with `raw` as it was sent), kind, pid, user or database.

    The kernel sums up, and `flush` takes the groups. For user and database, the queries send events instead: give each
    of them to `add`. They are "?" if a backend had ended before its first query was added.
    """
    if by != "user" and by != "database":
        return statements.summed(queries, by, DIALECT, raw=raw)
    queries.emit("latency")
    known: dict[int, Backend | None] = {}  # each is looked up once, when its first query arrives

    def label(event: Any) -> str:
        if event.pid not in known:
            known[event.pid] = backend(event.pid)
        connection = known[event.pid]
        return "?" if connection is None else connection.user if by == "user" else connection.database

    return LatencyGroups(label)
