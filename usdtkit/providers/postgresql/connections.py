"""Whose connection each backend of PostgreSQL serves: its user and its database, kept in the kernel.

Input: a session and program files. Output: expressions of both, for `queries`. A backend is told them in InitPostgres,
before its first query. Those that were there before the trace say them in the titles of their processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usdtkit import processes
from usdtkit.providers.postgresql.backends import backend
from usdtkit.trace import Expression, Session, cstr, uprobe

NAME_SIZE = 64  # of the server's names, with their NUL


class Connections:
    """`user` and `database` of the backend that hits; "" for one whose title does not say them."""

    def __init__(self, session: Session, files: Sequence[str]) -> None:
        connections = session.thread_values(user=NAME_SIZE, database=NAME_SIZE)
        self.user: Expression = connections.get("user")
        self.database: Expression = connections.get("database")
        names = {path.rpartition("/")[2] for path in files}
        connections.begin_with(lambda: _connected(names))
        for path in files:
            # (const char *in_dbname, Oid, const char *username, …)
            begins = session.source(session.optional(uprobe(path, "InitPostgres")))
            begins.assign(connections, user=cstr(3, NAME_SIZE), database=cstr(1, NAME_SIZE))


def _connected(names: set[str]) -> Mapping[int, Mapping[str, str]]:
    """The connections of the backends that run programs of these file names."""
    found = ((pid, backend(pid)) for pid in processes.named(*names))
    return {pid: connection._asdict() for pid, connection in found if connection is not None}
