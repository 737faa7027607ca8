"""Queries of PostgreSQL in both protocols: what the server does for each of them, from its arrival to its answer.

Input: a session. Output: sources whose hits are the ends of queries, rows of their events, and latencies in groups.
`work` finds where queries begin and end.
"""

from __future__ import annotations

from typing import Any

from usdtkit.providers import statements
from usdtkit.providers.postgresql.backends import DIALECT, Program, programs, shown
from usdtkit.providers.postgresql.connections import Connections
from usdtkit.providers.postgresql.work import COMMANDS, QUERY, Work
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.trace import Session, Source, Sources

FIELDS: tuple[str, ...] = ("latency", "command", "error", "query")
"""What `queries` offer to `emit`, and `describe` needs."""


def queries(
    session: Session, program: Program = None, *, size: int = QUERY_SIZE, steps: bool = False, phases: bool = False
) -> Sources[Source]:
    """The queries of the servers that a session traces, each when the server is done with it.

    They offer `latency`, the first `size` bytes of the text as `query`, and `command` and `error`, which `describe`
    names, and the connection's `user` and `database`. The latency is all that the server does for the query: it parses,
    binds, plans, executes and commits, in as many messages as the client sends. With `phases`, they offer the time of
    each of PHASES, whose sum it is. `steps` adds statements that were only prepared. `program` names the server's
    program if no server runs yet.

    Raises NotFoundError if there is no server, or one whose functions are not found; UsageError for the process of a
    postmaster.
    """
    files = programs(session, program)
    work, connections = Work(session, size, steps=steps, phases=phases), Connections(session, files)
    ends = [end for path in files for end in work.follow(path)]
    if not steps:
        ends = [end.where((work.step >= QUERY) | (work.error != 0)) for end in ends]
    return Sources(*(end.derive(user=connections.user, database=connections.database) for end in ends))


def describe(event: Any, *, raw: bool = False) -> dict[str, Any]:
    """The row of a query that was sent with FIELDS: its text as `shown` gives it, the name of its command, and the
    SQLSTATE of the error that ended it, or None."""
    row: dict[str, Any] = event._asdict()
    error = event.error.to_bytes(8, "little").rstrip(b"\0").decode(errors="replace") or None
    return {**row, "query": shown(event.query, raw=raw), "command": COMMANDS[event.command], "error": error}


def latencies(queries: Sources[Source], by: Label, *, raw: bool = False) -> LatencyGroups:
    """Sum up the latencies of queries by statement (with `raw` as it was sent), kind, pid, user or database.

    The kernel sums up, and `flush` takes the groups. User and database are "?" for a backend that began before the
    trace and whose process does not have the title that the server gives it.
    """
    return statements.summed(queries, by, DIALECT, raw=raw)
