"""Queries of PostgreSQL in both protocols: where they begin and end in the server.

Input: a session. Output: pairs that keep `query`, and their latencies in groups. The functions and offsets that replace
missing probes are from PostgreSQL's headers (utils/portal.h, tcop/pquery.h, tcop/dest.h).
"""

from __future__ import annotations

import mmap
import re
from typing import Any

from usdtkit.errors import NotFoundError
from usdtkit.files import OpenFile
from usdtkit.providers import statements
from usdtkit.providers.postgresql.backends import DIALECT, Backend, Program, backend, programs
from usdtkit.providers.statements import QUERY_SIZE, Label, LatencyGroups
from usdtkit.records import NamedTuple
from usdtkit.trace import Pair, Session, Sources, cstr, deref, tid, uprobe, usdt

# Called when a backend waits for the next message, after a query as well as after an error. A query of the simple
# protocol lasts from query__start until here; one that fails does not reach query__done.
_READY = "ReadyForQuery"


class PortalRun(NamedTuple):
    """PortalRun as some major versions declare it: (Portal, long, bool, bool, DestReceiver *dest, …).

    It executes a bound statement of the extended protocol, and each statement of the simple one. `source` is the offset
    of PortalData.sourceText; `dest` says which argument, counted from 1, is the receiver of the result.
    """

    versions: range
    source: int
    dest: int


PORTAL_RUN = (PortalRun(range(15, 18), source=56, dest=5), PortalRun(range(10, 15), source=48, dest=5))
DEST_KIND, DEST_REMOTE_EXECUTE = 32, 3  # DestReceiver.mydest, and its value in the extended protocol
_VERSION = rb"PostgreSQL (\d+)[^\0]{0,99} on "  # as version() has it, in the program


def queries(session: Session, program: Program = None, *, size: int = QUERY_SIZE) -> Sources[Pair]:
    """The queries of the servers that a session traces, until the backend is ready for the next message.

    `query` is the first `size` bytes of the text. A query of the simple protocol begins at its arrival, and one of the
    extended protocol (prepared statements, most drivers) when it is executed. Both include the commit, and those that
    fail are seen too. A server without symbols shows queries of the simple protocol that succeed. `program` names the
    server's program if no server runs yet.

    Raises NotFoundError if there is no server, or one without probes; UsageError for the process of a postmaster.
    """
    files = programs(session, program)
    if pairs := [pair for path in files for pair in _queries_of(session, path, size)]:
        return Sources(*pairs)
    raise NotFoundError(
        f"{' and '.join(files)}: neither the probes nor the functions of postgres",
        hint="a PostgreSQL built with --enable-dtrace has them, such as Debian's",
    )


def latencies(queries: Sources[Pair], by: Label, *, raw: bool = False) -> LatencyGroups:
    """Sum up the latencies of queries by statement (with `raw` as it was sent), kind, pid, user or database.

    The queries then send the events that the groups need: give each of them to `add`. User and database are "?" if
    a backend had ended before its first query was added.
    """
    queries.emit("latency", "query")
    if by != "user" and by != "database":
        return LatencyGroups(statements.labeller(by, DIALECT, raw=raw))
    known: dict[int, Backend | None] = {}  # each is looked up once, when its first query arrives

    def label(event: Any) -> str:
        if event.pid not in known:
            known[event.pid] = backend(event.pid)
        connection = known[event.pid]
        return "?" if connection is None else connection.user if by == "user" else connection.database

    return LatencyGroups(label)


def _queries_of(session: Session, program: str, size: int) -> list[Pair]:
    """The queries of one program; none if it has no probes."""
    start, ready = usdt("postgresql:query__start", program), uprobe(program, _READY)
    keep = {"query": cstr("query", size)}
    try:
        pairs = [session.pair(start, ready, key=tid, keep=keep)]
    except NotFoundError:  # a server without symbols, or without probes
        try:
            return [session.pair(start, usdt("postgresql:query__done", program), keep=keep)]
        except NotFoundError:
            return []
    if portal_run := PORTAL_RUN[0] if session.offline else _portal_run(program):
        text, destination = cstr(deref(1, portal_run.source), size), deref(portal_run.dest, DEST_KIND, "i32")
        kept = {"query": text, "destination": destination}
        runs = session.pair(uprobe(program, "PortalRun"), ready, key=tid, keep=kept)
        pairs.append(runs.where(runs.kept("destination") == DEST_REMOTE_EXECUTE))
    return pairs


def _portal_run(program: str) -> PortalRun | None:
    """PortalRun as this program declares it; None if it does not say its version, or we do not know that version."""
    try:
        file = OpenFile.open(program)
    except NotFoundError:  # its container has ended
        return None
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as content:
        version = re.search(_VERSION, content)
        major = int(version[1]) if version else 0
    return next((portal_run for portal_run in PORTAL_RUN if major in portal_run.versions), None)
