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
from typing import Any

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.databases import DATABASES, add_query_options, new_database_session
from usdtkit.cli.run import follow
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column
from usdtkit.trace import latency, ms

TOPIC = "databases"
VARIANTS = ("mysql -x mysqld", "postgres -x postgres")

COLUMNS = [TIME, PID, LATENCY_MS, Column("QUERY", "query", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit dbslower`."""
    parser.add_argument("engine", choices=DATABASES, help="the kind of server")
    add_query_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    database = DATABASES[options.engine]
    minimum = 1.0 if options.min_ms is None else options.min_ms

    with new_database_session(options, database) as session:
        database.queries(session, options.exe).where(latency >= ms(minimum)).emit("latency", "query")

        def describe(event: Any) -> dict[str, Any]:
            return {**event._asdict(), "query": database.shown(event.query, raw=options.raw_text)}

        return follow(session, options, "dbslower", COLUMNS, describe=describe)
