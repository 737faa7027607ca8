"""Show where PostgreSQL's statements spend their time: in parsing, binding, planning, executing and so on.

Uses the probes query__parse, query__rewrite, query__plan and query__execute of the server, and the statements that
backends report. There is one line for each shape of statement, the costliest first: how often it was executed, and how
long each phase took in all. A prepared statement is parsed once. The time of a statement within a function is part of
the execution of the statement that calls the function. Literals are shown as "?" unless --raw-text is given.

examples:
  usdtkit pgphases -i 5                     print every five seconds
  usdtkit pgphases --top 5 -d 60            show the five costliest statements of a minute
"""

from usdtkit.cli.arguments import IntervalOptions, StatementOptions
from usdtkit.cli.options import option
from usdtkit.cli.values import positive
from usdtkit.providers import postgresql
from usdtkit.results import Column, Summaries, Table
from usdtkit.results.columns import part_columns
from usdtkit.trace import Session

TOPIC = "databases"

COLUMNS = (
    Column("count", "COUNT", "count", 7, "how often the statement was executed"),
    *part_columns(postgresql.PHASES, "in all, the time of the phase"),
    Column("statement", "STATEMENT", "text", meaning="the statement"),
)


class Options(StatementOptions, IntervalOptions):
    """Options of `usdtkit pgphases`."""

    top: int = option("--top", type=positive, default=20, metavar="N", help="show the N costliest statements (20)")


def trace(session: Session, options: Options) -> Summaries:
    """Sum up the phases of statements."""
    phases = postgresql.PhaseTimes(session, options.exe, raw=options.raw_text)
    return Summaries(session, COLUMNS, lambda: [Table(phases.flush()[: options.top])], take=phases.add)
