"""Show queries of MySQL, MariaDB and PostgreSQL servers that take longer than a threshold.

Uses the server's own probes (query__start and query__done) where it has them, else the function that runs a client's
commands. Without -p it traces all servers of the kind that run here. Literals are shown as "?", because queries carry
people's data: --raw-text shows statements as they were sent.

examples:
  usdtkit dbslower postgres             PostgreSQL's queries of 1 ms or longer
  usdtkit dbslower mysql -m 0           all queries of MySQL or MariaDB
  usdtkit dbslower postgres -p 188,322  of these backends
"""

import argparse

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.databases import ENGINES, add_query_options, tracing_queries
from usdtkit.cli.run import follow
from usdtkit.cli.statements import row_maker
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column
from usdtkit.trace import ms

TOPIC = "databases"
VARIANTS = ("mysql -x mysqld", "postgres -x postgres")

COLUMNS = [TIME, PID, LATENCY_MS, Column("QUERY", "query", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit dbslower`."""
    parser.add_argument("engine", choices=ENGINES, help="the kind of server")
    add_query_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    engine = ENGINES[options.engine]
    minimum = 1.0 if options.min_ms is None else options.min_ms

    with tracing_queries(options, engine) as (session, queries):
        for each in queries:
            each.where(each.latency >= ms(minimum)).emit("latency", "query")
        return follow(session, options, "dbslower", COLUMNS, describe=row_maker(engine, options))
