"""Queries of database servers from Python: of a process, of all that run, of a command, and of a program to come."""

import subprocess

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.providers import mysql, postgresql
from usdtkit.tools import dbslower
from usdtkit.trace import latency, ms

pytestmark = pytest.mark.machine


def test_queries_of_a_process(mariadb):
    with trace.Session(pid=mariadb.pid) as session:
        mysql.queries(session).where(latency > ms(20)).emit("query", "latency")
        session.start()
        mariadb.query("select 1", "select sleep(0.02)", "select 2")
        (event,) = session.drain()
    assert (mysql.shown(event.query), mysql.shown(event.query, raw=True)) == ("select sleep(?)", "select sleep(0.02)")
    assert event.latency_ns > 20_000_000


def test_queries_of_all_servers_in_one_table(mariadb, postgres):
    for server, provider in ((mariadb, mysql), (postgres, postgresql)):
        with trace.Session() as session:
            counts = provider.queries(session).count("comm")
            session.start()
            server.query(*["select 1"] * 97)
            (count,) = counts.read().values()
        assert count == 97


def test_both_protocols_of_postgresql_are_one_histogram(postgres):
    with trace.Session() as session:
        latencies = postgresql.queries(session).hist("latency")
        session.start()
        postgres.query(*["select 1"] * 31)
        simple = latencies.delta()[()].count
        postgres.bench("select :number + 1", 97)
        assert simple == 31
        assert latencies.delta()[()].count >= 97  # and what the client asks besides


def test_queries_of_a_command(compile_c, tmp_path):
    source = compile_c("mysql_usdt.c")
    (tmp_path / "go").write_text("go\n")
    with trace.Session(command=["sh", "-c", f'exec "$0" 97 < {tmp_path}/go', str(source)]) as session:
        users = mysql.queries(session, source).count("pid")
        for _ in session.intervals():
            pass
        ((_, count),) = users.read().items()
    assert count == 97


def test_the_program_of_a_command_is_the_server(compile_c):
    with trace.Session(command=[str(compile_c("mysql_usdt.c"))]) as session:
        (pair,) = mysql.queries(session)
        assert {place.path for place in pair.resolved.places} == {str(compile_c("mysql_usdt.c"))}


def program_of(provider, **options):
    with trace.Session(**options) as session:
        provider.queries(session).where(latency > ms(5)).emit("query", "latency")
        return session.program().text


def test_an_offline_session_has_the_same_program_and_looks_at_nothing(mariadb, postgres, monkeypatch):
    here = [program_of(mysql, pid=mariadb.pid), program_of(postgresql)]
    for module in ("processes", "targets"):
        monkeypatch.setattr(f"usdtkit.providers.servers.{module}", None)
    assert [program_of(mysql, offline=True), program_of(postgresql, offline=True)] == here


def test_latencies_by_user_of_a_server_with_probes(compile_c, spawn, wait_for_line):
    server = spawn([compile_c("mysql_usdt.c"), 97])
    wait_for_line(server, "ready")
    with trace.Session(pid=server.pid) as session:
        groups = mysql.latencies(mysql.queries(session), by="user")
        session.start()
        server.stdin.write("go\n")
        server.stdin.flush()
        found = [group for _ in session.intervals() for group in groups.flush()]
    assert [(group.label, group.distribution.count, group.count) for group in found] == [("ada", 97, 97)]


def test_rows_of_a_tool(postgres):
    with trace.Session() as session:
        rows = dbslower.trace(session, dbslower.Options(engine="postgres", min_ms=20.0))
        session.start()
        postgres.query("select 1", "select pg_sleep(0.02)")
        session.stop()
        (row,) = rows
    assert row["query"] == "select pg_sleep(?)"
    assert row["latency_ns"] > 20_000_000


def test_what_cannot_be_measured(postgres, stepper):
    with trace.Session(pid=postgres.pid) as session, pytest.raises(UsageError, match="runs no queries"):
        postgresql.queries(session)
    with trace.Session(pid=stepper().pid) as session, pytest.raises(NotFoundError, match="neither the probes nor"):
        mysql.queries(session)


def test_mariadb_has_no_function_that_leaves_its_commands(mariadb):
    """Their returns are seen by return probes, which the server would notice if a thread were unwound by force."""
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", mariadb.binary], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1].partition("@")[0] for line in undefined.stdout.splitlines()}
    assert "__cxa_throw" in names  # the names are those that are meant
    leaving = {"pthread_exit", "pthread_cancel", "longjmp", "_longjmp", "siglongjmp", "__longjmp_chk"}
    assert not names & {*leaving, "setcontext", "swapcontext", "makecontext", "_Unwind_ForcedUnwind"}
    with trace.Session(pid=mariadb.pid) as session:
        mysql.queries(session).count()
        returns = {place.returns for place in session.plan() if "dispatch_command" in place.name}
    assert returns == {"probes"}


@pytest.mark.parametrize("name", ["mysql_parse", "mysql_parse(THD *, char *, unsigned int, Parser_state *)"])
def test_a_global_function_of_a_server(mariadb, name):
    with trace.Session(pid=mariadb.pid) as session:
        counts = session.uprobe("mariadbd", name).count("probe")
        session.start()
        mariadb.query(*["do 1"] * 997)
        assert counts.read() == {("mysql_parse(THD*, char*, unsigned int, Parser_state*)",): 997}
