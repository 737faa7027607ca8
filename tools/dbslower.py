"""Show queries of MySQL, MariaDB and PostgreSQL servers that take longer than a threshold.

What is measured is all that the server does for a query, from its arrival until the answer is ready, in every protocol.
Without -p, all servers of the kind that run here are traced. Literals are shown as "?", because queries carry people's
data. With --raw-text, statements are shown as they were sent. With --phases, the latency is split into its parts.

examples:
  usdtkit dbslower postgres             show PostgreSQL's queries of 1 ms or more
  usdtkit dbslower mysql -m 0           show all queries of MySQL and MariaDB
  usdtkit dbslower postgres -p 188,322  show queries of these backends
  usdtkit dbslower postgres --phases    show also how long each was parsed, bound, planned, executed and committed
"""

from functools import partial

from usdtkit.cli.arguments import StatementOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.errors import UsageError
from usdtkit.providers import databases, postgresql
from usdtkit.providers.databases import DATABASES
from usdtkit.records import replace
from usdtkit.results import LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.trace import Session, latency, ms

TOPIC = "databases"
VARIANTS = ("mysql", "postgres", "postgres --phases")

_COMMANDS = ", ".join(postgresql.COMMANDS)
PHASES = tuple(
    Column(
        f"{name}_ns",
        f"{name.upper()}(ms)",
        "duration",
        11,
        f"with --phases: the part {name} of it",
        unit="ms",
        optional=True,
    )
    for name in postgresql.PARTS
)
COLUMNS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS),
    *PHASES,
    Column("command", "COMMAND", width=8, meaning=f"what the client asked for: {_COMMANDS}", optional=True),
    Column("error", "ERROR", width=5, meaning="the SQLSTATE of the error that ended it", nullable=True, optional=True),
    Column("query", "QUERY", "text", meaning="the text, without its literals unless --raw-text is given", role="name"),
)


class Options(StatementOptions):
    """Options of `usdtkit dbslower`."""

    engine: str = option(choices=tuple(DATABASES), help="the kind of server")
    min_ms: float = min_ms_option("show queries of MS ms or more (1)", default=1.0, threshold=True)
    phases: bool = option("--phases", default=False, help="PostgreSQL: show also the parts of the latency")


def processes(options: Options) -> list[int] | None:
    """The servers that run here."""
    return databases.servers(options.engine, options.exe)


def trace(session: Session, options: Options) -> Rows:
    """Trace queries; a row when one ends."""
    database = DATABASES[options.engine]
    fields = database.FIELDS
    if not options.phases:
        queries = database.queries(session, options.exe, steps=True)
    elif options.engine == "postgres":
        queries = postgresql.queries(session, options.exe, steps=True, parts=True)
        fields += tuple(column.name for column in PHASES)
    else:
        raise UsageError(f"--phases is not known for {options.engine}", hint="usdtkit dbslower postgres --phases")
    queries.where(latency >= ms(options.min_ms)).emit(*fields)
    columns = [column for column in COLUMNS if not column.optional or column.name in fields]
    return Rows(session, columns, partial(database.describe, raw=options.raw_text))
