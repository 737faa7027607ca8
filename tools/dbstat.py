"""Summarise how long queries of MySQL, MariaDB and PostgreSQL servers take.

A histogram of all queries is summed up in the kernel. With --by, there is a histogram for each user, database, kind of
statement or process. With --top, a table shows the statements that took most of the servers' time. Literals are shown
as "?", so that statements which differ only in their data are counted as one. With --raw-text, they are kept apart, and
shown as they were sent.

examples:
  usdtkit dbstat postgres -i 1                print every second
  usdtkit dbstat mysql -m 5                   count only queries of 5 ms or more
  usdtkit dbstat postgres --by database
  usdtkit dbstat mysql --top 10 -d 60         show the ten costliest statements of a minute
"""

from collections.abc import Iterable

from usdtkit.cli.arguments import IntervalOptions, StatementOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.cli.values import positive
from usdtkit.providers.databases import DATABASES, engine
from usdtkit.providers.statements import Label
from usdtkit.results import BUCKETS, Block, Column, Histogram, Summaries, Table
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"
VARIANTS = ("mysql", "mysql --top 1", "postgres", "postgres --top 1")

COLUMNS = (
    Column("count", "COUNT", "count", 8, "how many queries there were"),
    Column("total_ns", "TOTAL(ms)", "duration", 11, "the time of all of them", unit="ms", optional=True),
    Column("average_ns", "AVG(ms)", "duration", 9, "the mean of their times", unit="ms", optional=True),
    Column("max_ns", "MAX(ms)", "duration", 9, "the longest of their times", unit="ms", optional=True),
    Column("statement", "STATEMENT", "text", meaning="with --top: the statement", optional=True),
    Column("engine", values=tuple(DATABASES), meaning="of a histogram: the kind of server", optional=True),
    Column("user", type="text", meaning='with --by user: "?" if it is not known', optional=True),
    Column("database", type="text", meaning='with --by database: "?" if it is not known', optional=True),
    Column("kind", meaning="with --by kind: the first word of the statements", optional=True),
    Column("pid", meaning="with --by pid: the process", optional=True),
    *(column for column in BUCKETS if column.name != "count"),
)


class Options(StatementOptions, IntervalOptions):
    """Options of `usdtkit dbstat`."""

    exclusive = (("by", "top"),)
    engine: str = option(type=engine, choices=tuple(DATABASES), help="the kind of server; also mariadb and postgresql")
    by: Label | None = option(
        "--by", choices=("user", "database", "kind", "pid"), default=None, help="print a histogram for each of them"
    )
    top: int | None = option(
        "--top", type=positive, default=None, metavar="N", help="print the N statements that took the most time"
    )
    microseconds: bool = option(
        "-u", "--microseconds", default=False, help="accepted for compatibility with bcc; buckets show their units"
    )
    min_ms: float = min_ms_option("count only queries of MS ms or more", threshold=True)


def trace(session: Session, options: Options) -> Summaries:
    """Sum up queries in the kernel."""
    database = DATABASES[options.engine]
    queries = database.queries(session, options.exe).where(latency >= ms(options.min_ms))
    engine = {"engine": options.engine}
    if not (options.by or options.top):
        histogram = queries.hist("latency")
        return Summaries(session, COLUMNS, lambda: [Histogram(histogram.delta()[()], labels=engine)])
    groups = database.latencies(queries, options.by or "statement", raw=options.raw_text)

    def summarise() -> Iterable[Block]:
        if options.by:
            return [
                Histogram(group.distribution, labels={**engine, options.by: group.label}) for group in groups.flush()
            ]
        return [Table([group.row() for group in groups.flush()[: options.top]])]

    return Summaries(session, COLUMNS, summarise)
