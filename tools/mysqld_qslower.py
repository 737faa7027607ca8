"""Show queries of MySQL and MariaDB servers that take longer than a threshold.

A server that has the probes mysql:query__start and mysql:query__done (MySQL up to 5.7, built with DTrace) is traced by
these. In any other server, the function that runs the commands of clients is measured. Without a PID, every mysqld and
mariadbd that runs here is traced. Literals are shown as "?", because queries carry people's data. With --raw-text,
queries are shown as the server received them.

examples:
  usdtkit mysqld_qslower              show queries of 1 ms or more
  usdtkit mysqld_qslower -m 0         show all queries
  usdtkit mysqld_qslower 1234 10      show queries of process 1234 of 10 ms or more
"""

from typing import Any

from usdtkit.cli.arguments import StatementOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.cli.values import milliseconds, process
from usdtkit.providers import mysql
from usdtkit.records import replace
from usdtkit.results import LATENCY_MS, PID, PROBE, TID, TIME, Column, Row, Rows
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"

COLUMNS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS),
    Column("query", "QUERY", "text", meaning="the text, without its literals unless --raw-text is given", role="name"),
)


class Options(StatementOptions):
    """Options of `usdtkit mysqld_qslower`."""

    server: int | str | None = option(
        default=None,
        type=process,
        metavar="PID",
        session="pid",
        help="the server: a number, or a program's name (all that run here)",
    )
    threshold: float = option(default=1.0, type=milliseconds, metavar="MIN_MS", help="the same as -m (1)")
    min_ms: float | None = min_ms_option("show queries of MS ms or more", default=None, threshold=True)


def processes(options: Options) -> list[int] | None:
    """The servers that run here, unless the user names the program of some that start later."""
    return None if options.exe else mysql.servers()


def trace(session: Session, options: Options) -> Rows:
    """Trace queries; a row when one ends."""
    min_ms = options.threshold if options.min_ms is None else options.min_ms
    mysql.queries(session, options.exe).where(latency >= ms(min_ms)).emit("latency", "query")

    def describe(event: Any) -> Row:
        return {**event._asdict(), "query": mysql.shown(event.query, raw=options.raw_text)}

    return Rows(session, COLUMNS, describe)
