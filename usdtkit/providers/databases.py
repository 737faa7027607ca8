"""The kinds of database servers, by name, for callers that are told which of them to use.

Input: nothing. Output: modules that offer the same functions, such as `queries` and `latencies`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from usdtkit.providers import mysql, postgresql
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.trace import Session, Source, Sources


class Database(Protocol):
    """What the module of each kind of server offers."""

    FIELDS: tuple[str, ...]

    def servers(self) -> list[int]:
        """The processes of the servers that run here. NotFoundError, PrivilegeError if there are none."""

    def shown(self, query: str | bytes | None, *, raw: bool = False) -> str | None:
        """A query as it may be shown: its literals replaced, or with `raw` as the server got it."""

    def queries(
        self,
        session: Session,
        program: str | os.PathLike[str] | None = None,
        *,
        size: int = QUERY_SIZE,
        steps: bool = False,
    ) -> Sources[Source]:
        """From the start of a query to its end, with up to `size` bytes of its text.

        `steps` adds what executes no statement, but prepares one or fetches its rows.
        """

    def describe(self, event: Any, *, raw: bool = False) -> Mapping[str, Any]:
        """The row of a query that was sent with FIELDS."""

    def latencies(self, queries: Sources[Source], by: Label, *, raw: bool = False) -> LatencyGroups:
        """Latencies of the queries, grouped by a label."""


DATABASES: dict[str, Database] = {"mysql": mysql, "postgres": postgresql}
CALLED = {"mariadb": "mysql", "mariadbd": "mysql", "mysqld": "mysql", "pg": "postgres", "postgresql": "postgres"}


def engine(word: str) -> str:
    """The name in DATABASES of a kind of server, which people call otherwise too; the word itself if it is none."""
    return CALLED.get(word, word)
