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

    def servers(self) -> list[int]: ...

    def shown(self, query: str | bytes | None, *, raw: bool = False) -> str | None: ...

    def queries(
        self, session: Session, program: str | os.PathLike[str] | None = None, *, size: int = QUERY_SIZE
    ) -> Sources[Pair]: ...

    def latencies(self, queries: Sources[Pair], by: Label, *, raw: bool = False) -> LatencyGroups: ...


DATABASES: dict[str, Database] = {"mysql": mysql, "postgres": postgresql}
