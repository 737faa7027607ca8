"""What the tools for databases share: which servers, where in them a query begins and ends, and what is shown of it.

Input: the tools' options. Output: pairs of a session, from the start of a query to its end, that keep `query` (and,
where a server's probes say them, `database` and `user`); rows with the text as it may be shown. What is known of each
server's probes and functions stands in `usdtkit.signatures`.
"""

from __future__ import annotations

import argparse
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from usdtkit import processes, targets
from usdtkit.cli.run import new_session, running
from usdtkit.cli.values import milliseconds
from usdtkit.errors import NotFoundError, PrivilegeError, UsageError
from usdtkit.files import OpenFile
from usdtkit.model import Target
from usdtkit.output.sql import Dialect
from usdtkit.records import dataclass
from usdtkit.signatures import mysql, postgresql
from usdtkit.trace import Expression, Pair, Session, arg, buffer, cstr, deref, tid, uprobe, usdt

QUERY_SIZE = 256


@dataclass(frozen=True)
class Engine:
    """A kind of server: the names of its program, and how to find the queries of one program in a session.

    With `forks` a process serves one connection: new ones come while we trace, so none is named to the kernel.
    """

    name: str
    dialect: Dialect
    servers: tuple[str, ...]
    forks: bool
    queries: Callable[[Session, str], list[Pair]]
    without: str  # what to do when a program has neither probes nor functions


def add_query_options(parser: argparse.ArgumentParser, *, threshold: bool = True) -> None:
    """-x and --raw-text of the tools for databases, and with `threshold` -m."""
    if threshold:
        flags = ("-m", "--min-ms", "--threshold")
        parser.add_argument(*flags, dest="min_ms", type=milliseconds, metavar="MS", help="only what takes so long")
    parser.add_argument("-x", "--exe", metavar="PATH", help="the server's program, for servers that start later")
    parser.add_argument("--raw-text", action="store_true", help="statements as sent, with the data in them")


@contextmanager
def tracing_servers(options: argparse.Namespace, engine: Engine) -> Iterator[tuple[Session, list[str]]]:
    """A session for the options, and the programs of the servers that they mean: paths, and by heart names alone."""
    pids: list[int] | None = options.pid
    if named := options.exe or (options.command or [""])[0]:
        programs = [named if options.by_heart else targets.resolve(named)[0].path]
    else:
        found = running(options, *engine.servers) or []
        # As they can be opened from here, also where servers live in containers, each with a file of this name.
        mapped = [target.path for program in _programs(found) for target in _mapped(program, found)]
        programs = list(dict.fromkeys(mapped))
        if engine.forks and pids:
            _refuse_parents(pids, engine)
        pids = pids if engine.forks else found or None
    with new_session(options, pids=pids) as session:
        yield session, programs


@contextmanager
def tracing_queries(options: argparse.Namespace, engine: Engine) -> Iterator[tuple[Session, list[Pair]]]:
    """A session for the options, with the queries of all servers that they mean."""
    with tracing_servers(options, engine) as (session, programs):
        queries = [pair for program in programs for pair in engine.queries(session, program)]
        if not queries:
            raise NotFoundError(
                f"{' and '.join(programs)}: neither the probes nor the functions of {engine.name}", hint=engine.without
            )
        yield session, queries


def _programs(pids: Sequence[int]) -> list[str]:
    """What the processes run, each program once. NotFoundError where all of them have ended."""
    found = set()
    for pid in pids:
        try:
            found.add(str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)"))
        except FileNotFoundError:  # a server that forks ends processes all the time
            continue
        except PermissionError as error:
            raise PrivilegeError(f"{error.filename} may not be read", hint="run as root") from None
    if pids and not found:
        raise NotFoundError(f"no process {pids[0]}", hint="pgrep -a NAME finds the number of a process")
    return sorted(found)


def _mapped(program: str, pids: Sequence[int]) -> list[Target]:
    """The files of this name that the processes run; none where the last of them that does has ended."""
    try:
        return targets.resolve(program, pids)
    except NotFoundError:
        if len(pids) == 1:
            raise
        return []


def _refuse_parents(pids: Sequence[int], engine: Engine) -> None:
    """UsageError of a postmaster: it runs no query, and a trace of it would stay empty."""
    parents = {_parent(pid) for pid in processes.named(*engine.servers)}
    for pid in parents.intersection(pids):
        raise UsageError(
            f"process {pid} runs no queries: the backends do that it forks for each connection",
            hint="leave -p out, or name a backend: select pg_backend_pid()",
        )


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    return int(status.partition("PPid:")[2].split(None, 1)[0])


def _by_probes(session: Session, program: str, start: str, done: str, keep: Sequence[str]) -> list[Pair]:
    """Queries by a server's own probes; none where it was built without."""
    try:
        others = {name: cstr(name, 64) for name in keep}
        kept = {"query": cstr("query", QUERY_SIZE), **others}
        return [session.pair(usdt(start, program), usdt(done, program), keep=kept)]
    except NotFoundError:
        return []


def _mysql(session: Session, program: str) -> list[Pair]:
    """Queries by the probes, else by dispatch_command, as the server's version declares it."""
    if found := _by_probes(session, program, "mysql:query__start", "mysql:query__done", ("database", "user")):
        return found
    for dispatch in mysql.DISPATCH_COMMAND:
        keep = {"command": arg(dispatch.command).cast("u32"), "query": _packet(dispatch)}
        try:
            commands = session.pair(uprobe(program, dispatch.symbol), keep=keep)
        except NotFoundError:
            continue
        return [commands.where(commands.kept("command") == mysql.COM_QUERY)]
    return []


def _packet(dispatch: mysql.Dispatch) -> Expression:
    """The SQL text at the entry of dispatch_command: bytes, because a NUL within does not end it for the server."""
    query = arg(dispatch.query)
    if dispatch.length:
        return buffer(query, arg(dispatch.length), QUERY_SIZE)
    return buffer(deref(query), deref(query, 8, "u32"), QUERY_SIZE)


def _postgresql(session: Session, program: str) -> list[Pair]:
    """Queries of the simple protocol by the probes, and executions of the extended one by PortalRun, where we know how
    this version declares it; each until the backend is ready for more, or failed."""
    ready = uprobe(program, postgresql.READY)
    start = usdt("postgresql:query__start", program)
    try:
        found = [session.pair(start, ready, key=tid, keep={"query": cstr("query", QUERY_SIZE)})]
    except NotFoundError:  # a server without symbols, or without probes
        return _by_probes(session, program, "postgresql:query__start", "postgresql:query__done", ())
    if portal_run := _portal_run(program):
        keep = {
            "query": cstr(deref(1, portal_run.source), QUERY_SIZE),
            "destination": deref(portal_run.dest, postgresql.DEST_KIND, "i32"),
        }
        runs = session.pair(uprobe(program, "PortalRun"), ready, key=tid, keep=keep)
        found.append(runs.where(runs.kept("destination") == postgresql.DEST_REMOTE_EXECUTE))
    return found


def _portal_run(program: str) -> postgresql.PortalRun | None:
    """As the major version of a PostgreSQL declares it; None where it does not say which that is, or it is not known.

    By heart there is no file: then any, as they make the same program, with other numbers in it.
    """
    if "/" not in program:
        return postgresql.PORTAL_RUN[0]
    try:
        file = OpenFile.open(program)
    except NotFoundError:  # its container has ended
        return None
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as content:
        found = re.search(postgresql.VERSION, content)
        major = int(found[1]) if found else 0
    return next((each for each in postgresql.PORTAL_RUN if major in each.versions), None)


MYSQL = Engine(
    *("mysql", "mysql", mysql.SERVERS, False, _mysql),
    without="usdtkit list -p PID shows its probes; a stripped server needs its debug symbols",
)
POSTGRES = Engine(
    *("postgres", "postgresql", postgresql.SERVERS, True, _postgresql),
    without="a PostgreSQL built with --enable-dtrace has them, such as Debian's",
)
ENGINES = {engine.name: engine for engine in (MYSQL, POSTGRES)}
