"""The results of a trace: columns with units, rows, distributions, stacks, and the account of every hit.

Input: events and tables of `usdtkit.trace`, described by `usdtkit.providers` or by a tool. Output: rows and blocks
that a sink of `usdtkit.output` writes, whatever its format is. Nothing here knows a format.

    from usdtkit import trace
    from usdtkit.results import PID, TIME, Column, Rows

    with trace.Session() as session:
        session.uprobe("c", "getaddrinfo").emit(host=trace.cstr(1))
        for row in Rows(session, (TIME, PID, Column("host", "HOST", "text"))):
            print(row["host"])
"""

from __future__ import annotations

from usdtkit.results.blocks import Block, Calls, Histogram, Row, StackSum, Table
from usdtkit.results.columns import (
    BUCKETS,
    COMM,
    COMMAND,
    ERROR,
    LATENCY_MS,
    LATENCY_US,
    PID,
    PROBE,
    PYCALLER,
    TID,
    TIME,
    UID,
    Column,
    Schema,
)
from usdtkit.results.results import Results, Rows, Summaries

__all__ = [
    "BUCKETS", "COMM", "COMMAND", "ERROR", "LATENCY_MS", "LATENCY_US", "PID", "PROBE", "PYCALLER", "TID", "TIME",
    "UID", "Block", "Calls", "Column", "Histogram", "Results", "Row", "Rows", "Schema", "StackSum", "Summaries",
    "Table",
]  # fmt: skip
