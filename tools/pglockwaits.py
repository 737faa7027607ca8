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

from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.databases import add_query_options, new_database_session
from usdtkit.cli.run import follow, follow_intervals
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column, milliseconds
from usdtkit.providers import postgresql
from usdtkit.trace import latency, ms

TOPIC = "databases"
VARIANTS = ("-x postgres", "-x postgres --lwlocks")

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
    condition = latency >= ms(options.min_ms or 0)
    with new_database_session(options, postgresql) as session:
        if options.lwlocks:
            summed = postgresql.LwlockWaits(session, options.exe, condition=condition)
            write = lambda report: report.block(summed.flush())  # noqa: E731
            return follow_intervals(session, options, "pglockwaits", LWLOCKS, write)
        waits = postgresql.LockWaits(session, options.exe, condition=condition, raw=options.raw_text)
        return follow(session, options, "pglockwaits", COLUMNS, describe=waits.describe)
