"""Show queries of MySQL, MariaDB and PostgreSQL servers that take longer than a threshold.

A server that has the probes query__start and query__done is traced by these. In any other server, the function that
runs the commands of clients is measured. Without -p, all servers of the kind that run here are traced. Literals are
shown as "?", because queries carry people's data. With --raw-text, statements are shown as they were sent.

examples:
  usdtkit dbslower postgres             show PostgreSQL's queries of 1 ms or more
  usdtkit dbslower mysql -m 0           show all queries of MySQL and MariaDB
  usdtkit dbslower postgres -p 188,322  show queries of these backends
"""

from typing import Any

from usdtkit.cli.arguments import StatementOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.providers import databases
from usdtkit.providers.databases import DATABASES
from usdtkit.records import replace
from usdtkit.results import LATENCY_MS, PID, PROBE, TID, TIME, Column, Row, Rows
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"
VARIANTS = ("mysql", "postgres")

COLUMNS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS),
    Column("query", "QUERY", "text", meaning="the text, without its literals unless --raw-text is given", role="name"),
)


class Options(StatementOptions):
    """Options of `usdtkit dbslower`."""

    engine: str = option(choices=tuple(DATABASES), help="the kind of server")
    min_ms: float = min_ms_option("show queries of MS ms or more (1)", default=1.0, threshold=True)


def processes(options: Options) -> list[int] | None:
    """The servers that run here."""
    return databases.servers(options.engine, options.exe)


def trace(session: Session, options: Options) -> Rows:
    """Trace queries; a row when one ends."""
    database = DATABASES[options.engine]
    database.queries(session, options.exe).where(latency >= ms(options.min_ms)).emit("latency", "query")

    def describe(event: Any) -> Row:
        return {**event._asdict(), "query": database.shown(event.query, raw=options.raw_text)}

    return Rows(session, COLUMNS, describe)
