"""Show MySQL and MariaDB queries that take longer than a threshold.

Uses the probes mysql:query__start and mysql:query__done where the server has them (MySQL up to 5.7 built with DTrace),
else the function that runs a client's commands. Without a PID it finds mysqld or mariadbd by itself. Queries are shown
as the server got them, with everything that stands in them.

examples:
  usdtkit mysqld_qslower              queries of 1 ms or longer
  usdtkit mysqld_qslower -m 0         all queries
  usdtkit mysqld_qslower 1234 10      of process 1234, 10 ms or longer
"""

import argparse
import os
from pathlib import Path

from usdtkit import processes
from usdtkit.cli.run import add_session_options, follow, milliseconds, new_session, pid
from usdtkit.errors import NotFoundError, PrivilegeError
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column
from usdtkit.providers.mysql import COM_QUERY, DISPATCH_COMMAND, Dispatch
from usdtkit.trace import Expression, Pair, Session, arg, cstr, deref, ms, uprobe, usdt

TOPIC = "databases"

SERVERS = ("mysqld", "mariadbd", "mysqld-debug")
QUERY_SIZE = 256
COLUMNS = [TIME, PID, LATENCY_MS, Column("QUERY", "query", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit mysqld_qslower`."""
    parser.add_argument("server", nargs="?", type=pid, metavar="PID", help="the server; without, all that run here")
    parser.add_argument("min_ms", nargs="?", type=milliseconds, default=1.0, metavar="MIN_MS", help="the threshold (1)")
    parser.add_argument(
        "-m", "--min-ms", type=milliseconds, dest="min_ms_option", metavar="MS", help="the threshold (1)"
    )
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    minimum = options.min_ms if options.min_ms_option is None else options.min_ms_option
    pids = [*([options.server] if options.server else []), *(options.pid or [])] or servers()
    with new_session(options, pids=pids) as session:
        for queries in by_probes(session) or by_function(session, pids):
            queries.where(queries.latency >= ms(minimum)).emit("latency", "query")
        return follow(session, options, "mysqld_qslower", COLUMNS)


def servers() -> list[int]:
    """The servers that run on this machine."""
    if found := processes.named(*SERVERS):
        return found
    names = " or ".join(SERVERS[:2])
    if os.geteuid() != 0:
        raise PrivilegeError(f"no {names} among the processes that may be looked into", hint="run as root")
    raise NotFoundError(f"no {names} runs here", hint="start it first, or give its PID")


def by_probes(session: Session) -> list[Pair]:
    """Queries by the server's own probes; none where it was built without."""
    try:
        start, done = usdt("mysql:query__start"), usdt("mysql:query__done")
        return [session.pair(start, done, keep={"query": cstr("query", QUERY_SIZE)})]
    except NotFoundError:
        return []


def by_function(session: Session, pids: list[int]) -> list[Pair]:
    """Queries by dispatch_command, as the server's version declares it."""
    found = []
    for program in {str(Path(f"/proc/{server}/exe").readlink()) for server in pids}:
        for dispatch in DISPATCH_COMMAND:
            keep = {"command": arg(dispatch.command).cast("u32"), "query": query_text(dispatch)}
            try:
                commands = session.pair(uprobe(program, dispatch.symbol), keep=keep)
            except NotFoundError:
                continue
            found.append(commands.where(commands.kept("command") == COM_QUERY))
    if not found:
        raise NotFoundError(
            f"process {pids[0]} has neither mysql's probes nor dispatch_command",
            hint="usdtkit list -p PID shows its probes; a stripped server needs its debug symbols",
        )
    return found


def query_text(dispatch: Dispatch) -> Expression:
    """The SQL text at the entry of dispatch_command."""
    query = arg(dispatch.query)
    if dispatch.length:
        return cstr(query, QUERY_SIZE, length=arg(dispatch.length))
    return cstr(deref(query), QUERY_SIZE, length=deref(query, 8, "u32"))
