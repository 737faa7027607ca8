"""Show queries of MySQL, MariaDB and PostgreSQL servers that take longer than a threshold.

What is measured is all that the server does for a query, from its arrival until the answer is ready, in every protocol.
Without -p, all servers of the kind that run here are traced. Literals are shown as "?", because queries carry people's
data. With --raw-text, statements are shown as they were sent. With --phases, the latency is split into phases.

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
from usdtkit.providers import mysql, postgresql
from usdtkit.providers.databases import DATABASES, engine
from usdtkit.records import replace
from usdtkit.results import COMMAND, ERROR, LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.results.columns import part_columns
from usdtkit.trace import Session, Source, Sources, latency, ms

TOPIC = "databases"
VARIANTS = ("mysql", "postgres", "postgres --phases")

_COMMANDS = ", ".join(dict.fromkeys([*postgresql.COMMANDS, *mysql.COMMANDS.values()]))
PHASES = part_columns(postgresql.PHASES, "with --phases: the time of the phase", optional=True)
COLUMNS = (
    *(TIME, PID, replace(TID, heading=""), PROBE, LATENCY_MS),
    *PHASES,
    *(replace(COMMAND, meaning=f"what the client asked for: {_COMMANDS}"), ERROR),
    Column("query", "QUERY", "text", meaning="the text, without its literals unless --raw-text is given", role="name"),
)


class Options(StatementOptions):
    """Options of `usdtkit dbslower`."""

    engine: str = option(type=engine, choices=tuple(DATABASES), help="the kind of server; also mariadb and postgresql")
    min_ms: float = min_ms_option("show queries of MS ms or more (1)", default=1.0, threshold=True)
    phases: bool = option("--phases", default=False, help="PostgreSQL: show also the time of each phase")
    nested: bool = option(
        "--nested", default=False, help="MySQL: show also the statements within procedures, functions and triggers"
    )


def trace(session: Session, options: Options) -> Rows:
    """Trace queries; a row when one ends."""
    database = DATABASES[options.engine]
    fields = database.FIELDS
    if options.phases and options.engine != "postgres":
        raise UsageError(f"--phases is not known for {options.engine}", hint="usdtkit dbslower postgres --phases")
    if options.nested and options.engine != "mysql":
        raise UsageError(f"--nested is not known for {options.engine}", hint="usdtkit dbslower mysql --nested")
    if options.phases:
        queries: Sources[Source] = postgresql.queries(session, options.exe, steps=True, phases=True)
        fields += tuple(column.name for column in PHASES)
    elif options.nested:
        queries = mysql.queries(session, options.exe, steps=True, nested=True)
    else:
        queries = database.queries(session, options.exe, steps=True)
    queries.where(latency >= ms(options.min_ms)).emit(*fields)
    columns = [column for column in COLUMNS if not column.optional or column.name in fields]
    return Rows(session, columns, partial(database.describe, raw=options.raw_text))
