"""Show what PostgreSQL's backends wait for: locks on tables, rows and transactions, and the server's own.

Uses the probes lock__wait__start and lock__wait__done, and the statements that backends report. A line appears when a
wait is over; one that ends in an error (a deadlock, a timeout) is counted as dropped in the JSON summary. With
--lwlocks the lightweight locks that protect the server's memory, summed up in the kernel. Literals are shown as "?",
unless --raw-text.

examples:
  usdtkit pglockwaits
  usdtkit pglockwaits -m 100                waits of 100 ms or longer
  usdtkit pglockwaits --lwlocks -i 5        every five seconds, the lightweight locks by the time waited
"""

import argparse
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.databases import POSTGRES, add_query_options, tracing_servers
from usdtkit.cli.run import follow, follow_intervals
from usdtkit.cli.statements import Current
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column, Report, milliseconds
from usdtkit.signatures.postgresql import LOCK_MODES, LOCK_TYPES, LWLOCK_MODES
from usdtkit.trace import cstr, ms, tid, usdt

TOPIC = "databases"
VARIANTS = ("-x postgres", "-x postgres --lwlocks")

TAGS = ("tag1", "tag2", "tag3", "tag4")
COLUMNS = [
    *(TIME, PID, LATENCY_MS, Column("LOCK", "lock", 13), Column("MODE", "mode", 15), Column("TARGET", "target", 14)),
    Column("STATEMENT", "statement", 0),
]
LWLOCKS = [
    *(Column("COUNT", "count", 8, right=True), Column("TOTAL(ms)", "total_ns", 11, milliseconds, right=True)),
    *(Column("P99(ms)", "p99_ns", 9, milliseconds, right=True), Column("MODE", "mode", 10), Column("LOCK", "lock", 0)),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit pglockwaits`."""
    parser.add_argument("--lwlocks", action="store_true", help="a table of the lightweight locks instead")
    add_query_options(parser)
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with tracing_servers(options, POSTGRES) as (session, programs):
        kind = "lwlock" if options.lwlocks else "lock"
        ends = [usdt(f"postgresql:{kind}__wait__{end}", program) for program in programs for end in ("start", "done")]
        # A backend waits for one at a time; a wait that an error ended is replaced by the next.
        pairs = [session.pair(start, done, key=tid) for start, done in zip(ends[::2], ends[1::2], strict=True)]
        waits = [pair.where(pair.latency >= ms(options.min_ms or 0)) for pair in pairs]
        if options.lwlocks:
            tables = [wait.hist("latency", "mode", lock=cstr("tranche", 64)) for wait in waits]

            def write(report: Report) -> None:
                rows = [row for table in tables for row in table.delta().items() if row[1].count]
                rows.sort(key=lambda row: -row[1].sum)
                report.block(
                    {
                        **{"count": waited.count, "total_ns": waited.sum, "p99_ns": waited.percentile(99)},
                        **{"mode": name(LWLOCK_MODES, mode), "lock": lock},
                    }
                    for (mode, lock), waited in rows
                )

            return follow_intervals(session, options, "pglockwaits", LWLOCKS, write)
        current = Current(raw=options.raw_text)
        for program, wait in zip(programs, waits, strict=True):
            current.trace(session, program)
            wait.emit("latency", *TAGS, "tag_type", "mode")

        def describe(event: Any) -> Mapping[str, Any] | None:
            if event.probe == current.PROBE:
                current.take(event)
                return None
            row = event._asdict()
            tags = [row.pop(tag) for tag in TAGS]
            names = {"lock": name(LOCK_TYPES, row.pop("tag_type")), "mode": name(LOCK_MODES, event.mode)}
            return {**row, **names, "target": "/".join(map(str, tags)), "statement": current.of(event)}

        return follow(session, options, "pglockwaits", COLUMNS, describe=describe)


def name(names: tuple[str, ...], number: int) -> str:
    """The name of a number; the number where it is newer than the names."""
    return names[number] if 0 <= number < len(names) else str(number)
