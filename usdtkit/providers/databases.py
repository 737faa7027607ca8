"""The kinds of database servers, by name, for callers that are told which of them to use.

Input: nothing. Output: modules that offer the same functions, such as `queries` and `latencies`.
"""

from __future__ import annotations

import os
from typing import Protocol

from usdtkit.providers import mysql, postgresql
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.trace import Pair, Session, Sources


class Database(Protocol):
    """What the module of each kind of server offers."""

    def servers(self) -> list[int]:
        """The processes of the servers that run here. NotFoundError, PrivilegeError if there are none."""

    def shown(self, query: str | bytes | None, *, raw: bool = False) -> str | None:
        """A query as it may be shown: its literals replaced, or with `raw` as the server got it."""

    def queries(
        self, session: Session, program: str | os.PathLike[str] | None = None, *, size: int = QUERY_SIZE
    ) -> Sources[Pair]:
        """Pairs from the start of a query to its end, which keep up to `size` bytes of its text."""

    def latencies(self, queries: Sources[Pair], by: Label, *, raw: bool = False) -> LatencyGroups:
        """Latencies of the queries, grouped by a label."""


DATABASES: dict[str, Database] = {"mysql": mysql, "postgres": postgresql}


def servers(engine: str, program: str | os.PathLike[str] | None = None) -> list[int] | None:
    """The processes of the servers that run here, None for all processes that run the server's program.

    None is given for a `program` that was named, and for PostgreSQL, which forks a backend for each connection.
    NotFoundError, PrivilegeError where there are no MySQL servers.
    """
    return mysql.servers() if engine == "mysql" and not program else None
