"""Show MySQL and MariaDB queries that take longer than a threshold.

Uses the probes mysql:query__start and mysql:query__done where the server has them (MySQL up to 5.7 built with DTrace),
else the function that runs a client's commands. Without a PID it finds mysqld or mariadbd by itself. Literals are shown
as "?", because queries carry people's data: --raw-text shows queries as the server got them.

examples:
  usdtkit mysqld_qslower              queries of 1 ms or longer
  usdtkit mysqld_qslower -m 0         all queries
  usdtkit mysqld_qslower 1234 10      of process 1234, 10 ms or longer
"""

import argparse
from typing import Any

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.databases import add_query_options, new_database_session
from usdtkit.cli.run import follow
from usdtkit.cli.values import milliseconds, pid
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column
from usdtkit.providers import mysql
from usdtkit.trace import latency, ms

TOPIC = "databases"
VARIANTS = ("-x mysqld",)

COLUMNS = [TIME, PID, LATENCY_MS, Column("QUERY", "query", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit mysqld_qslower`."""
    parser.add_argument("server", nargs="?", type=pid, metavar="PID", help="the server; without, all that run here")
    parser.add_argument("threshold", nargs="?", type=milliseconds, default=1.0, metavar="MIN_MS", help="as -m (1)")
    add_query_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    minimum = options.threshold if options.min_ms is None else options.min_ms
    if options.server:
        options.pid = [options.server, *(options.pid or [])]

    with new_database_session(options, mysql) as session:
        mysql.queries(session, options.exe).where(latency >= ms(minimum)).emit("latency", "query")

        def describe(event: Any) -> dict[str, Any]:
            return {**event._asdict(), "query": mysql.shown(event.query, raw=options.raw_text)}

        return follow(session, options, "mysqld_qslower", COLUMNS, describe=describe)
