"""PostgreSQL's processes: the program that they run, and each backend's connection and current statement.

Input: a session, process ids, events of the probe statement__status. Output: programs, `Backend`s, statements. Used by
the other modules of this package.
"""

# ruff: noqa: PTH123

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from usdtkit import processes
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.providers import sql
from usdtkit.providers.servers import parents, program_files, running
from usdtkit.providers.statements import QUERY_SIZE
from usdtkit.records import NamedTuple
from usdtkit.trace import FunctionSpec, Session, arg, cstr

DIALECT: sql.Dialect = "postgresql"
"""The dialect of SQL that the server speaks."""
SERVERS: tuple[str, ...] = ("postgres",)
"""The file name of the program that the postmaster and its backends run."""
Program = str | os.PathLike[str] | None

# The title that a backend gives itself (the setting update_process_title, on by default): the name of the cluster if it
# has one, the user, the database, the client's host or [local], and what the backend does just now.
# A walsender says that it is one first, and has a database only for logical replication.
_TITLE = re.compile(
    r"postgres: (?:[^ ]+: )?(?:walsender )?(?P<user>[^ ]+)(?: (?P<database>[^ ]+))? (?:\[local\]|[^ ]+\(\d+\))"
)
_STATUS = "postgresql:statement__status"
MAX_BACKENDS = 10_000


class Backend(NamedTuple):
    """The connection that a backend serves; `database` is "" for physical replication."""

    user: str
    database: str


def servers() -> list[int]:
    """The processes of PostgreSQL that run here, postmasters and backends. Raises the errors of `servers.running`."""
    return running(*SERVERS)


def programs(session: Session, program: Program = None) -> list[str]:
    """The program files of the servers that a session traces. See `usdtkit.providers.servers.program_files`.

    UsageError if the session traces a postmaster, which runs no query: the trace would stay empty.
    """
    try:
        files = program_files(session, SERVERS, program)
    except NotFoundError:
        session.missing += [FunctionSpec(f"*/{name}", ("PortalRun",)) for name in SERVERS]  # which --wait waits for
        raise
    if session.search_pids and not session.offline:
        for pid in parents(processes.named(*SERVERS)).intersection(session.search_pids):
            raise UsageError(
                f"process {pid} runs no queries itself; it forks a backend for each connection, which does",
                hint="leave -p out, or name a backend: select pg_backend_pid()",
            )
    return files


def shown(query: str | bytes | None, *, raw: bool = False) -> str | None:
    """The text of a query with "?" for each literal, or with `raw` as the client sent it."""
    return sql.shown(query, DIALECT, raw=raw)


def backend(pid: int) -> Backend | None:
    """The connection that a backend serves; None for a process that has ended, or that is no backend of a client."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="surrogateescape") as file:
            title = _TITLE.match(file.read())
    except OSError:  # it has ended
        return None
    return Backend(title["user"], title["database"] or "") if title else None


class Statements:
    """The current statement of each backend, from the events of the probe statement__status.

    With `raw` it is kept as the client sent it, else without its literals. Backends come and go with their connections:
    the statements of the MAX_BACKENDS that were heard of last are kept.
    """

    def __init__(self, session: Session, programs: Sequence[str], *, raw: bool = False) -> None:
        for program in programs:
            reports = session.usdt(_STATUS, program)
            # A backend that waits for the next message reports NULL.
            reports.where(arg("status").cast("u64") != 0).emit(query=cstr("status", QUERY_SIZE))
        self._raw = raw
        self._current: dict[int, str | None] = {}

    @staticmethod
    def is_report(event: Any) -> bool:
        """Whether an event reports a new statement of a backend."""
        return bool(event.probe == _STATUS)

    def note(self, event: Any) -> None:
        """Keep the statement that a report names."""
        self._current.pop(event.pid, None)
        self._current[event.pid] = shown(event.query, raw=self._raw)
        if len(self._current) > MAX_BACKENDS:
            del self._current[next(iter(self._current))]

    def of(self, pid: int) -> str | None:
        """The current statement of a backend; None if it began before the trace."""
        return self._current.get(pid)
