"""Show what PostgreSQL's backends wait for: locks on tables, rows and transactions, or lightweight locks.

Uses the probes lock__wait__start and lock__wait__done, and the statements that backends report. A line appears when a
wait is over. A wait that ends in an error (a deadlock, a timeout) is counted as dropped in the JSON summary. With
--lwlocks, a table shows the waits for the lightweight locks that protect the server's memory, summed up in the kernel.
Literals are shown as "?" unless --raw-text is given.

examples:
  usdtkit pglockwaits
  usdtkit pglockwaits -m 100                show waits of 100 ms or more
  usdtkit pglockwaits --lwlocks -i 5        show the lightweight locks by the time waited, every five seconds
"""

from usdtkit.cli.arguments import IntervalOptions, StatementOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.providers import postgresql
from usdtkit.records import replace
from usdtkit.results import LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows, Summaries, Table
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"
SCHEMA_VERSION = 2
VARIANTS = ("", "--lwlocks")

LOCK = Column("lock", "LOCK", width=13, meaning="the type of the lock; with --lwlocks the name of its tranche")
MODE = Column("mode", "MODE", width=15, meaning="the mode in which the backend asked for the lock")
WAITS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS, LOCK, MODE),
    Column("target", "TARGET", width=14, meaning="the lock's four numbers, of a relation with its database first"),
    Column("statement", "STATEMENT", "text", meaning="the statement that waited"),
)
LWLOCK_WAITS = (
    Column("count", "COUNT", "count", 8, "how many waits there were"),
    Column("total_ns", "TOTAL(ms)", "duration", 11, "the time of all of them", unit="ms"),
    Column("p99_ns", "P99(ms)", "duration", 9, "99 % of the waits were not longer", unit="ms"),
    *(replace(MODE, width=10), replace(LOCK, width=0)),
)
COLUMNS = tuple(
    column if column in (TIME, LOCK, MODE) else replace(column, optional=True) for column in (*WAITS, *LWLOCK_WAITS[:3])
)


class Options(StatementOptions, IntervalOptions):
    """Options of `usdtkit pglockwaits`."""

    lwlocks: bool = option("--lwlocks", default=False, help="print a table of the lightweight locks instead")
    min_ms: float = min_ms_option("show waits of MS ms or more", threshold=True)


def trace(session: Session, options: Options) -> Rows | Summaries:
    """Trace waits: a row when one is over, or a table of those for lightweight locks."""
    condition = latency >= ms(options.min_ms)
    if options.lwlocks:
        lwlocks = postgresql.LwlockWaits(session, options.exe, condition=condition)
        return Summaries(session, LWLOCK_WAITS, lambda: [Table(lwlocks.flush())])
    locks = postgresql.LockWaits(session, options.exe, condition=condition, raw=options.raw_text)
    return Rows(session, WAITS, locks.describe)
