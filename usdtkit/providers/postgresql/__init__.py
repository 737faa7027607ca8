"""Queries of PostgreSQL servers, what they wait for, and in which phase a statement spends its time.

    from usdtkit import trace
    from usdtkit.providers import postgresql
    from usdtkit.trace import latency, ms

    with trace.Session() as session:
        postgresql.queries(session).where(latency > ms(5)).emit("query", "latency")
        event = next(iter(session))
        print(postgresql.shown(event.query), event.latency_ns > 5_000_000)

Input: a session. Output: pairs from the start of a query or a wait to its end, and classes that make rows of their
events. A server is one process, the postmaster, which forks a backend for each connection. Only backends run queries.
So a session traces all backends, present and future, or those whose process ids it is given, but never the postmaster.
`mysql` offers the same queries for MySQL and MariaDB.
"""

from __future__ import annotations

from usdtkit.providers.postgresql.backends import (
    DIALECT,
    SERVERS,
    Backend,
    backend,
    programs,
    servers,
    shown,
)
from usdtkit.providers.postgresql.phases import PHASES
from usdtkit.providers.postgresql.phasetimes import PhaseTimes
from usdtkit.providers.postgresql.queries import FIELDS, describe, latencies, queries
from usdtkit.providers.postgresql.waits import LockWaits, LwlockWaits, lock_waits, lwlock_waits
from usdtkit.providers.postgresql.work import COMMANDS

__all__ = [
    "COMMANDS", "DIALECT", "FIELDS", "PHASES", "SERVERS", "Backend", "LockWaits", "LwlockWaits", "PhaseTimes",
    "backend", "describe", "latencies", "lock_waits", "lwlock_waits", "programs", "queries", "servers", "shown",
]  # fmt: skip
