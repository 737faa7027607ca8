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

from functools import partial

from usdtkit.cli.arguments import StatementOptions, min_ms_option, process_argument
from usdtkit.cli.options import option
from usdtkit.cli.values import milliseconds
from usdtkit.providers import mysql
from usdtkit.records import replace
from usdtkit.results import COMMAND, ERROR, LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"

COLUMNS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS),
    *(replace(COMMAND, values=tuple(mysql.COMMANDS.values())), ERROR),
    Column("query", "QUERY", "text", meaning="the text, without its literals unless --raw-text is given", role="name"),
)


class Options(StatementOptions):
    """Options of `usdtkit mysqld_qslower`."""

    server: int | str | None = process_argument("the server: a number, or a program's name (all that run here)")
    threshold: float = option(default=1.0, type=milliseconds, metavar="MIN_MS", help="the same as -m (1)")
    min_ms: float | None = min_ms_option("show queries of MS ms or more", default=None, threshold=True)
    nested: bool = option(
        "--nested", default=False, help="show also the statements within procedures, functions and triggers"
    )


def trace(session: Session, options: Options) -> Rows:
    """Trace queries; a row when one ends."""
    min_ms = options.threshold if options.min_ms is None else options.min_ms
    queries = mysql.queries(session, options.exe, steps=True, nested=options.nested)
    queries.where(latency >= ms(min_ms)).emit(*mysql.FIELDS)
    return Rows(session, COLUMNS, partial(mysql.describe, raw=options.raw_text))
