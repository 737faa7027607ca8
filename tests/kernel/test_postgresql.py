"""Queries of PostgreSQL by every protocol and client: as many as the server counts, as long as their client waits."""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import psycopg
import psycopg2
import pytest
from processes import among_own_mounts, eventually
from programs import npm
from programs.pgwire import Wire
from programs.postgres import BINARIES, cluster

from usdtkit import trace
from usdtkit.errors import NotFoundError
from usdtkit.providers import postgresql
from usdtkit.providers.postgresql import backends

pytestmark = pytest.mark.machine
PROGRAMS = Path(__file__).parents[1] / "programs"
TIMES = 97
_markers = itertools.count(os.getpid() * 1000)


@contextmanager
def traced(server, *, steps=True, phases=False, unseen=0):
    """The rows of all queries, in the order of their ends; they are complete when the block has ended.

    `unseen` statements are known not to be among them.
    """
    rows = []
    with trace.Session() as session:
        queries = postgresql.queries(session, steps=steps, phases=phases)
        queries.emit(*postgresql.FIELDS, "database", *(f"{phase}_ns" for phase in postgresql.PHASES if phases))
        session.start()
        yield rows
        server.settle()
        session.stop()
        rows += [postgresql.describe(event, raw=True) for event in session]
        summary = session.summary()
        assert summary.hits >= len(rows)  # with what is no step
        assert summary.received == len(rows)
        assert sum(each.count for each in summary.unseen if each.why == "begun before the trace") == unseen
        assert (summary.lost, summary.full, summary.unmatched, summary.abandoned) == (0, 0, 0, 0)


def psql(server, text, times, value):
    printed = server.query("\\timing\nselect", *[text.format(value)] * times)
    return sum(float(line.split()[1]) for line in printed if line.startswith("Time:")) / 1000


def pgbench(protocol):
    def run(server, text, times, value):
        script = f"\\set value {value}\n{text.format(':value')};\n"
        options = ["--no-vacuum", f"--protocol={protocol}", f"--transactions={times}", "--file=/dev/stdin"]
        pipes = {"input": script, "text": True, "capture_output": True, "check": True}
        printed = subprocess.run([BINARIES / "pgbench", *options], env=server.environment, **pipes).stdout
        return float(re.search(r"latency average = ([\d.]+)", printed)[1]) / 1000 * times

    return run


def psycopg_client(how):
    def run(server, text, times, value):
        text = text.format("%s")
        with psycopg.connect(host=server.environment["PGHOST"], user="postgres", autocommit=True) as connection:
            start = time.perf_counter()
            match how:
                case "execute":
                    for _ in range(times):
                        connection.execute(text, [value])
                case "prepared":
                    for _ in range(times):
                        connection.execute(text, [value], prepare=True)
                case "executemany":
                    connection.cursor().executemany(text, [[value]] * times)
                case "pipeline":
                    with connection.pipeline():
                        for _ in range(times):
                            connection.execute(text, [value])
            return time.perf_counter() - start

    return run


def psycopg2_client(server, text, times, value):
    connection = psycopg2.connect(host=server.environment["PGHOST"], user="postgres")
    connection.autocommit = True
    cursor = connection.cursor()
    start = time.perf_counter()
    for _ in range(times):
        cursor.execute(text.format("%s"), [value])
    took = time.perf_counter() - start
    connection.close()
    return took


def asyncpg_client(how):
    async def run(server, text, times, value):
        connection = await asyncpg.connect(host=server.environment["PGHOST"], user="postgres", database="postgres")
        start = time.perf_counter()
        if how == "executemany":
            await connection.executemany(text.format("$1"), [[value]] * times)
        else:
            for _ in range(times):
                await connection.fetch(text.format("$1"), value)
        took = time.perf_counter() - start
        await connection.close()
        return took

    return lambda *arguments: asyncio.run(run(*arguments))


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory):
    home = tmp_path_factory.mktemp("node")
    npm.install("pg@8", home)
    return home / "node_modules"


def node(how):
    def run(server, text, times, value, node_modules):
        text = text.format(value if how == "simple" else "$1")
        environment = server.environment | {"NODE_PATH": str(node_modules)}
        command = ["node", PROGRAMS / "pg.js", how, text, str(times), str(value)]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return float(printed) / 1000

    return run


CLIENTS = {
    "psql": psql,
    **{f"pgbench-{protocol}": pgbench(protocol) for protocol in ("simple", "extended", "prepared")},
    **{f"psycopg-{how}": psycopg_client(how) for how in ("execute", "prepared", "executemany", "pipeline")},
    "psycopg2": psycopg2_client,
    **{f"asyncpg-{how}": asyncpg_client(how) for how in ("fetch", "executemany")},
    **{f"node-{how}": node(how) for how in ("simple", "parameters", "named")},
}
SIMPLE = ("psql", "pgbench-simple", "psycopg2", "node-simple")


@pytest.mark.parametrize("client", CLIENTS)
def test_as_many_as_the_server_counts(client, postgres, request):
    marker = f"abalone_{next(_markers)}"
    extra = [request.getfixturevalue("node_modules")] if client.startswith("node") else []
    # The server takes texts for the same statement that differ in names only, so it counts from here on.
    postgres.query("create extension if not exists pg_stat_statements", "select pg_stat_statements_reset()")
    with traced(postgres, steps=False) as rows:
        CLIENTS[client](postgres, f"select sqrt({{}}) as {marker}", TIMES, 2.25, *extra)
    rows = [row for row in rows if marker in (row["query"] or "")]
    assert postgres.query("select calls from pg_stat_statements where query like '%sqrt(%'") == [str(TIMES)]
    assert [row["command"] for row in rows] == ["query" if client in SIMPLE else "execute"] * TIMES
    assert {row["error"] for row in rows} == {None}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_latency_that_the_client_sees(client, postgres, request):
    extra = [request.getfixturevalue("node_modules")] if client.startswith("node") else []
    for _ in range(3):  # on a busy machine, the answer may reach its client late
        marker = f"abalone_{next(_markers)}"
        with traced(postgres, phases=True) as rows:
            seen = CLIENTS[client](postgres, f"select pg_sleep({{}}) as {marker}", 1, 0.3, *extra)
        rows = [row for row in rows if marker in (row["query"] or "")]
        latency = sum(row["latency_ns"] for row in rows)
        if latency > 0.9e9 * seen:
            break
    (command,) = (row["command"] for row in rows if row["command"] != "prepare")
    assert command == ("query" if client in SIMPLE else "execute")
    assert latency == pytest.approx(seen * 1e9, rel=0.1)
    for row in rows:
        assert sum(row[f"{phase}_ns"] for phase in postgresql.PHASES) == row["latency_ns"]
    assert max(row["execute_ns"] for row in rows) >= 300_000_000


def titled(spawn, title):
    """A process that has given itself this title."""
    process = spawn([f"postgres: {title}", "60"], executable="/usr/bin/sleep")
    # For a moment, a program that begins has no title.
    eventually(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"")
    return process.pid


@pytest.mark.parametrize(
    ("title", "user", "database"),
    [
        ("15/main: ada shop [local] idle", "ada", "shop"),
        ("ada shop 192.0.2.7(5432) SELECT", "ada", "shop"),
        ("walsender ada 192.0.2.7(5432) streaming 0/3000060", "ada", ""),
        ("15/main: walsender ada [local] idle", "ada", ""),
        ("walsender ada shop [local] START_REPLICATION", "ada", "shop"),
    ],
)
def test_whose_connection_a_process_says_that_it_serves(title, user, database, spawn):
    assert postgresql.backend(titled(spawn, title)) == (user, database)


@pytest.mark.parametrize("title", ["checkpointer", "ada the second shop [local] idle", "autovacuum worker shop"])
def test_processes_that_say_nothing_of_a_connection(title, spawn):
    assert postgresql.backend(titled(spawn, title)) is None


def test_backends_that_have_gone_take_no_memory(monkeypatch):
    monkeypatch.setattr(backends, "MAX_BACKENDS", 97)
    with trace.Session(offline=True) as session:
        statements = backends.Statements(session, [], raw=True)
        for pid in (*range(997), 900, 997):
            statements.note(SimpleNamespace(pid=pid, query=f"select {pid}"))
    known = [pid for pid in range(1000) if statements.of(pid) is not None]
    assert known == [900, *range(902, 998)]


def done(rows, pid):
    """What was asked for, with which text and error, by one backend."""
    return [(row["command"], row["query"], row["error"]) for row in rows if row["pid"] == pid]


def test_messages_and_the_rows_that_they_make(postgres):
    with traced(postgres) as rows, closing(Wire(postgres)) as wire:
        wire.query("select 1 as a; select 2 as b").send().read()
        assert wire.parse("select 3 as c").bind().execute().run() == "12DCZ"
        assert wire.parse("select $1::int as d", "d").describe("d").run() == "1tTZ"
        assert wire.bind("d", "", "4").execute().run() == "2DCZ"
        # Prepared in the same trip; two that are only prepared; several executions before one Sync.
        assert wire.parse("select 5 as e", "e").bind("e").execute().run() == "12DCZ"
        assert wire.parse("select 6 as f", "f").parse("select 7 as g", "g").run() == "11Z"
        wire.bind("f").execute().bind("g").execute().parse("select 8 as h").bind().execute()
        assert wire.run() == "2DC2DC12DCZ"
        assert wire.query("").send().read() == "IZ"
        assert wire.run() == "Z"  # nothing was asked for
    assert done(rows, wire.pid) == [
        ("query", "select 1 as a; select 2 as b", None),
        ("execute", "select 3 as c", None),
        ("prepare", "select $1::int as d", None),
        ("execute", "select $1::int as d", None),
        ("execute", "select 5 as e", None),
        ("prepare", "select 6 as f", None),
        ("prepare", "select 7 as g", None),
        *[("execute", f"select {number} as {name}", None) for number, name in ((6, "f"), (7, "g"), (8, "h"))],
        ("query", "", None),
    ]


def test_an_idle_backend_and_a_busy_one_when_the_trace_begins(postgres):
    with closing(Wire(postgres)) as idle, closing(Wire(postgres)) as busy:
        busy.query("select pg_sleep(0.5)").send()
        with traced(postgres, unseen=1) as rows:
            idle.query("select 1 as first").send().read()
            busy.read()
            busy.query("select 2 as second").send().read()
            idle.close()
            busy.close()
    assert done(rows, idle.pid) == [("query", "select 1 as first", None)]
    assert done(rows, busy.pid) == [("query", "select 2 as second", None)]


def test_waits_for_the_client_do_not_count(postgres):
    with traced(postgres, phases=True) as rows, closing(Wire(postgres)) as wire:
        for step, answer in ((wire.parse("select 1 as slow", "s"), "1"), (wire.bind("s").execute(), "C")):
            step.flush().send().read(answer)
            time.sleep(0.3)
        assert wire.run() == "Z"
    (row,) = (row for row in rows if row["pid"] == wire.pid)
    assert (row["command"], row["query"]) == ("execute", "select 1 as slow")
    assert 0 < row["latency_ns"] < 300_000_000
    assert sum(row[f"{phase}_ns"] for phase in postgresql.PHASES) == row["latency_ns"]


@pytest.mark.parametrize("how", ["simple", "unnamed", "named"])
def test_time_that_a_statement_takes_before_it_is_executed(how, postgres):
    text = f"select from generate_series(1, 1) as n where n in ({', '.join(map(str, range(2, 20_000)))})"
    with traced(postgres, phases=True) as rows, closing(Wire(postgres)) as wire:
        messages = wire.query(text).send() if how == "simple" else wire.parse(text, "a" * (how == "named"))
        if how != "simple":
            messages.bind("a" * (how == "named")).execute().sync().send()
        start = time.perf_counter_ns()
        messages.read()
        took = time.perf_counter_ns() - start
    (row,) = (row for row in rows if row["pid"] == wire.pid)
    assert row["parse_ns"] + row["plan_ns"] > row["execute_ns"]
    assert row["latency_ns"] > 0.7 * took


def test_rows_that_are_fetched_in_parts(postgres):
    with traced(postgres) as rows, closing(Wire(postgres)) as wire:
        wire.query("begin").send().read()
        wire.parse("select generate_series(1, 25) as n").bind("", "c").execute("c", 10).run()
        wire.execute("c", 10).execute("c", 10).run()
        wire.query("declare d cursor for select generate_series(1, 25)").send().read()
        wire.query("fetch 20 from d").send().read()
        wire.query("commit").send().read()
    assert done(rows, wire.pid) == [
        ("query", "begin", None),
        *[("fetch", "select generate_series(1, 25) as n", None)] * 3,
        ("query", "declare d cursor for select generate_series(1, 25)", None),
        ("query", "fetch 20 from d", None),
        ("query", "commit", None),
    ]


def test_copies_and_calls_of_functions(postgres):
    postgres.query("create table copied (a int)")
    with traced(postgres) as rows:
        with psycopg.connect(host=postgres.environment["PGHOST"], user="postgres", autocommit=True) as connection:
            pid = connection.info.backend_pid
            with connection.cursor().copy("copy copied from stdin") as copy:
                time.sleep(0.2)  # the copy waits for it, and so does who waits for the copy's locks
                copy.write("1\n" * 1000)
            with connection.cursor().copy("copy copied to stdout") as copy:
                assert sum(len(data) for data in copy) == 2000
        old = psycopg2.connect(host=postgres.environment["PGHOST"], user="postgres")
        other = old.info.backend_pid
        large = old.lobject(0, "wb")
        large.write(b"x" * 1000)
        old.close()
    copies = [row for row in rows if row["pid"] == pid]
    assert [(row["command"], row["query"]) for row in copies] == [
        ("query", "copy copied from stdin"),
        ("query", "copy copied to stdout"),
    ]
    assert copies[0]["latency_ns"] >= 200_000_000
    called = [row["command"] for row in rows if row["pid"] == other and row["query"] is None]
    assert called == ["function"] * 3  # lo_creat, lo_open, lowrite


ERRORS = {
    "parse": ("select from nothing where", [], "prepare", "42601"),
    "a name": ("select nothing", [], "prepare", "42703"),
    "bind": ("select $1::int", ["a"], "bind", "22P02"),
    "plan": ("select 1/0", [], "bind", "22012"),
    "execute": ("select 1/(n - 1) from generate_series(1, 2) as n", [], "execute", "22012"),
    "limit": ("select pg_sleep(60)", [], "execute", "57014"),
    "raised": ("do $$ begin raise exception 'no' using errcode = 'ZZ097'; end $$", [], "execute", "ZZ097"),
    "internal": ("select pg_read_file('/nowhere')", [], "execute", "58P01"),
    "caught": ("do $$ begin perform 1/0; exception when others then raise notice 'no'; end $$", [], "execute", None),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_by_the_step_at_which_they_come(error, postgres):
    text, values, command, state = ERRORS[error]
    with traced(postgres) as rows, closing(Wire(postgres)) as wire:
        wire.query("set statement_timeout = 200").send().read()
        wire.parse(text).bind("", "", *values).execute().run()
        wire.query(text.replace("$1", "'a'")).send().read()
        wire.query("select 1").send().read()
    assert done(rows, wire.pid)[1:] == [
        (command, text, state),
        ("query", text.replace("$1", "'a'"), state),
        ("query", "select 1", None),
    ]


def test_an_error_ends_a_pipeline(postgres):
    with traced(postgres) as rows, closing(Wire(postgres)) as wire:
        for text in ("select 1 as a", "select 1/(n - 1) from generate_series(1, 1) as n", "select 2 as never"):
            wire.parse(text).bind().execute()
        assert wire.run() == "12DC12EZ"
        assert wire.bind("nothing").execute().run() == "EZ"
    assert done(rows, wire.pid) == [
        ("execute", "select 1 as a", None),
        ("execute", "select 1/(n - 1) from generate_series(1, 1) as n", "22012"),
        ("bind", None, "26000"),
    ]


@pytest.mark.parametrize("text", ["select pg_sleep(60)", "prepared"])
def test_a_backend_that_is_terminated(text, postgres):
    with traced(postgres) as rows:
        wire = Wire(postgres)
        if text == "prepared":
            text = "select pg_sleep(60) as b"
            wire.parse(text).bind().execute().sync().send()
        else:
            wire.query(text).send()
        state = f"select count(*) from pg_stat_activity where pid = {wire.pid} and wait_event = 'PgSleep'"
        with psycopg.connect(host=postgres.environment["PGHOST"], user="postgres", autocommit=True) as other:
            eventually(lambda: other.execute(state).fetchone(), answer=(1,), timeout=30)
            idle = Wire(postgres)
            for ended in (wire, idle):
                other.execute("select pg_terminate_backend(%s)", [ended.pid])
                ended.read()
                ended.close()
    command = "execute" if text.endswith("b") else "query"
    assert done(rows, wire.pid) == [(command, text, "57P01")]
    assert done(rows, idle.pid) == []  # it was at nothing


def test_transactions_as_the_server_counts_them(postgres):
    counted = "select xact_commit from pg_stat_database where datname = 'counted'"
    postgres.query("create database counted")
    before = int(postgres.query(counted)[0])
    with traced(postgres, steps=False) as rows:
        postgres.bench("select 1 as transaction", TIMES, "extended", database="counted")
        postgres.bench("begin; select 2 as transaction; commit", TIMES, "simple", database="counted")
    single, within = (sum(row["query"] == f"select {n} as transaction;" for row in rows) for n in (1, 2))
    commits = sum(row["query"] == "commit;" and row["database"] == "counted" for row in rows)
    assert (single, within, commits) == (TIMES, TIMES, TIMES)
    # And what pgbench asks besides, and each connection's start.
    assert 2 * TIMES <= int(postgres.query(counted)[0]) - before <= 2 * TIMES + 10


def test_a_build_without_probes(tmp_path):
    program = BINARIES / "postgres"
    copy = shutil.copy(program, tmp_path)
    subprocess.run(["objcopy", "--remove-section=.note.stapsdt", copy], check=True)
    with (
        cluster(*among_own_mounts(f'mount --bind {copy} {program} && exec "$@"'), "sh") as plain,
        trace.Session() as session,
    ):
        postgresql.queries(session, copy, steps=True).emit(*postgresql.FIELDS)
        session.start()
        with closing(Wire(plain)) as wire:
            wire.query("select 1").send().read()
            wire.parse("select 2", "a").run()
            wire.bind("a").execute().bind("a").execute().run()
            wire.query("select nothing").send().read()
        session.stop()
        rows = [postgresql.describe(event) for event in session]
    with trace.Session() as session, pytest.raises(NotFoundError, match="query__parse__start"):
        postgresql.queries(session, copy, phases=True)
    # In the simple protocol too, what executes a query says what it is.
    assert [(row["command"], row["query"], row["error"]) for row in rows] == [
        ("execute", "select ?", None),
        ("prepare", "select ?", None),
        *[("execute", "select ?", None)] * 2,
        ("bind", "select nothing", "42703"),
    ]


def test_commands_of_replication_and_statements_beside_them(postgres):
    with traced(postgres) as rows:
        asked = ["IDENTIFY_SYSTEM", "select 1 as beside", "nothing"]
        words = [postgres.psql, "-qAt", "dbname=postgres replication=database"]
        command = [*words, *(word for text in asked for word in ("-c", text))]
        said = subprocess.run(command, env=postgres.environment, capture_output=True, text=True)
        assert "syntax error" in said.stderr
    (pid,) = {row["pid"] for row in rows if row["command"] == "replication"}
    assert done(rows, pid) == [
        ("replication", "IDENTIFY_SYSTEM", None),
        ("query", "select 1 as beside", None),
        ("query", "nothing", "42601"),
    ]
