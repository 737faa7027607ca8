"""Queries of MySQL and MariaDB servers: their text, and how long each of them takes.

    from usdtkit import trace
    from usdtkit.providers import mysql
    from usdtkit.trace import latency, ms

    with trace.Session(pid=4711) as session:
        mysql.queries(session).where(latency > ms(5)).emit("query", "latency")
        event = next(iter(session))
        print(mysql.shown(event.query), event.latency_ns > 5_000_000)

Input: a session. Output: pairs from the arrival of a command to its end, measured in the server, in the text protocol
and in the binary one, and pairs of what replication applies. `postgresql` offers the same for PostgreSQL. `queries`
makes the pairs, and `versions` knows how the versions of the server differ.
"""

from __future__ import annotations

from usdtkit.providers.mysql.queries import (
    DIALECT,
    FIELDS,
    describe,
    latencies,
    queries,
    servers,
    shown,
)
from usdtkit.providers.mysql.versions import COMMANDS, SERVERS

__all__ = ["COMMANDS", "DIALECT", "FIELDS", "SERVERS", "describe", "latencies", "queries", "servers", "shown"]
