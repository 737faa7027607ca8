"""What the tools for databases share on the command line: their options, and the session that these mean.

Input: the tools' options. Output: a session that traces the servers. What is known of them, and how they are measured,
stands in `usdtkit.providers`.
"""

from __future__ import annotations

import argparse

from usdtkit.cli.run import new_session
from usdtkit.cli.values import milliseconds
from usdtkit.providers import mysql, postgresql
from usdtkit.providers.statements import Database
from usdtkit.trace import Session

DATABASES: dict[str, Database] = {"mysql": mysql, "postgres": postgresql}


def add_query_options(parser: argparse.ArgumentParser, *, threshold: bool = True) -> None:
    """-x and --raw-text of the tools for databases, and with `threshold` -m."""
    if threshold:
        flags = ("-m", "--min-ms", "--threshold")
        parser.add_argument(*flags, dest="min_ms", type=milliseconds, metavar="MS", help="only what takes so long")
    parser.add_argument("-x", "--exe", metavar="PATH", help="the server's program, for servers that start later")
    parser.add_argument("--raw-text", action="store_true", help="statements as sent, with the data in them")


def new_database_session(options: argparse.Namespace, database: Database) -> Session:
    """A session of the servers that the options mean."""
    pids = options.pid
    # A PostgreSQL forks a process for each connection: new ones come while we trace, so that none is named.
    if database is mysql and not (pids or options.exe or options.command or options.by_heart):
        pids = database.servers()
    return new_session(options, pids=pids)
