"""Show where PostgreSQL's statements spend their time: parsing, rewriting, planning or executing.

Uses the probes query__parse, query__rewrite, query__plan and query__execute of the server, and the statements that
backends report. One line for each shape of statement, the costliest first: how often it was executed, and the time of
each phase in all. A prepared statement is parsed once; statements within functions are part of the execution of the one
that calls them. Literals are shown as "?", unless --raw-text.

examples:
  usdtkit pgphases -i 5
  usdtkit pgphases --top 5 -d 60            the five costliest statements of a minute
"""

import argparse

from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.databases import add_query_options, new_database_session
from usdtkit.cli.run import follow_intervals
from usdtkit.cli.values import positive
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.providers import postgresql

TOPIC = "databases"
VARIANTS = ("-x postgres",)

COLUMNS = [
    Column("COUNT", "count", 7, right=True),
    *(Column(f"{name.upper()}(ms)", f"{name}_ns", 11, milliseconds, right=True) for name in postgresql.PHASES),
    Column("STATEMENT", "statement", 0),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit pgphases`."""
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="so many statements (20)")
    add_query_options(parser, threshold=False)
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Summarise until told to stop."""
    with new_database_session(options, postgresql) as session:
        phases = postgresql.PhaseTimes(session, options.exe, raw=options.raw_text)

        def write(report: Report) -> None:
            report.block(phases.flush()[: options.top])

        return follow_intervals(session, options, "pgphases", COLUMNS, write, take=phases.add)
