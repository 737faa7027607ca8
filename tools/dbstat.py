"""Summarise the latency of queries of MySQL, MariaDB and PostgreSQL servers.

A histogram of all queries, summed up in the kernel; with --by one for each user, database or kind of statement; with
--top the statements that took most of the servers' time, by their shape: literals are shown as "?", so that statements
which differ only in their data are one (--raw-text: as they were sent, each by itself).

examples:
  usdtkit dbstat postgres -i 1                every second
  usdtkit dbstat mysql -m 5                   only queries of 5 ms or longer
  usdtkit dbstat postgres --by database
  usdtkit dbstat mysql --top 10 -d 60         the ten costliest statements of a minute
"""

import argparse

from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.databases import DATABASES, add_query_options, new_database_session
from usdtkit.cli.run import follow_intervals
from usdtkit.cli.values import positive
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.trace import latency, ms

TOPIC = "databases"
VARIANTS = ("mysql -x mysqld", "mysql -x mysqld --top 1", "postgres -x postgres", "postgres -x postgres --top 1")

COLUMNS = [
    *(Column("COUNT", "count", 8, right=True), Column("TOTAL(ms)", "total_ns", 11, milliseconds, right=True)),
    *(
        Column("AVG(ms)", "average_ns", 9, milliseconds, right=True),
        Column("MAX(ms)", "max_ns", 9, milliseconds, right=True),
    ),
    Column("STATEMENT", "statement", 0),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit dbstat`."""
    parser.add_argument("engine", choices=DATABASES, help="the kind of server")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--by", choices=("user", "database", "kind", "pid"), help="a histogram for each")
    what.add_argument("--top", type=positive, metavar="N", help="the N statements that took most time, as a table")
    parser.add_argument("-u", "--microseconds", action="store_true", help="as bcc has it; here bounds say their units")
    add_query_options(parser)
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Summarise until told to stop."""
    database = DATABASES[options.engine]
    with new_database_session(options, database) as session:
        queries = database.queries(session, options.exe).where(latency >= ms(options.min_ms or 0))
        if not (options.by or options.top):
            histogram = queries.hist("latency")

            def write_total(report: Report) -> None:
                report.histogram(histogram.delta()[()], engine=options.engine)

            return follow_intervals(session, options, "dbstat", COLUMNS, write_total)
        groups = database.latencies(queries, options.by or "statement", raw=options.raw_text)

        def write(report: Report) -> None:
            if options.by:
                for group in groups.flush():
                    report.histogram(group.distribution, **{"engine": options.engine, options.by: group.label})
            else:
                report.block(group.row() for group in groups.flush()[: options.top])

        return follow_intervals(session, options, "dbstat", COLUMNS, write, take=groups.add)
