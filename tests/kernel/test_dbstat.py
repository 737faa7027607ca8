"""dbstat on real servers: histograms and tables that add up to the number of queries that were sent."""

import csv
import subprocess

import pytest
from commandline import assert_explained, go, json_lines, start_tracing, stop_tracing, usdtkit
from programs.pgwire import Wire

from usdtkit import trace
from usdtkit.providers import postgresql

pytestmark = pytest.mark.machine


def lines_of(spawn, work, *options):
    """(the objects between header and summary, summary) of dbstat --json while `work` is done."""
    tracer = start_tracing(spawn, "dbstat", *options, "--json")
    work()
    header, lines, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.dbstat/1"
    assert (summary["lost"], summary["full"], summary["overflow"]) == (0, 0, 0)
    return lines, summary


def test_a_histogram_of_all_queries(postgres, spawn):
    (line,), summary = lines_of(spawn, lambda: postgres.query(*["select 1"] * 997), "postgres", "-i", "60")
    assert (line["engine"], line["value"], line["count"]) == ("postgres", "latency_ns", 997)
    assert sum(bucket["count"] for bucket in line["buckets"]) == 997
    assert line["sum"] > 997 * 1000
    assert summary["received"] == 0  # summed up in the kernel


def test_only_slow_queries_in_a_table_and_as_csv(mariadb, spawn):
    for form in ([], ["--csv"]):
        tracer = start_tracing(spawn, "dbstat", "mysql", "-m", "20", "-u", *form)
        mariadb.query("select 1", *["select sleep(0.03)"] * 7)
        output, messages = stop_tracing(tracer)
        assert " hits, lost 0" in messages  # and perhaps the end of the connection, which goes on for a moment
        if form:
            assert sum(int(row["count"]) for row in csv.DictReader(output.splitlines())) == 7
        else:
            assert sum(int(line.split(":")[1].split()[0]) for line in output.splitlines() if "|" in line) == 7


def test_the_statements_that_took_most_time(postgres, spawn):
    def work():
        postgres.query(*(f"select {n}, 'ada'" for n in range(97)), *["select pg_sleep(0.02)"] * 13, "select 1 as a")

    lines, summary = lines_of(spawn, work, "postgres", "--top", "2")
    assert [(line["statement"], line["count"]) for line in lines] == [("select pg_sleep(?)", 13), ("select ?, ?", 97)]
    assert lines[0]["total_ns"] >= 13 * 20_000_000
    assert 20_000_000 <= lines[0]["average_ns"] <= lines[0]["max_ns"] <= lines[0]["total_ns"]
    assert summary["received"] == 0  # summed up in the kernel

    tracer = start_tracing(spawn, "dbstat", "postgres", "--top", "2")
    work()
    _, heading, *rows = stop_tracing(tracer)[0].splitlines()
    assert heading.split() == ["COUNT", "TOTAL(ms)", "AVG(ms)", "MAX(ms)", "STATEMENT"]
    assert [(row.split(maxsplit=4)[0], row.split(maxsplit=4)[4]) for row in rows] == [
        ("13", "select pg_sleep(?)"),
        ("97", "select ?, ?"),
    ]


def test_statements_that_differ_in_their_data_take_no_room(mariadb, spawn):
    """Of two shapes, in a table with room for four; each as it was sent needs more."""

    def work():
        mariadb.query(*(f"select {n}, 'ada {n}' /* trace {n} */" for n in range(997)), *["do 1"] * 31)

    tracing = ("mysql", "--top", "9", "--capacity", "4")
    lines, summary = lines_of(spawn, work, *tracing)
    counts = {line["statement"]: line["count"] for line in lines}
    assert (counts["select ?, ?"], counts["do ?"], summary["received"]) == (997, 31, 0)

    tracer = start_tracing(spawn, "dbstat", *tracing, "--raw-text", "--json")
    work()
    _, lines, summary = json_lines(stop_tracing(tracer)[0])
    assert len(lines) == 4
    assert sum(line["count"] for line in lines) + summary["full"] >= 997 + 31
    assert all(line["count"] == 1 for line in lines if line["statement"].startswith("select 1"))


def test_each_interval_has_its_own_statements_and_its_longest(postgres):
    with trace.Session() as session:
        statements = postgresql.latencies(postgresql.queries(session), by="statement")
        session.start()
        found = []
        slower, slow, quick = (f"select pg_sleep({s}) as {name}" for s, name in ((0.05, "x"), (0.01, "x"), (0, "y")))
        for work in ([slower, quick], [slow, slow], [quick], []):
            if work:
                postgres.query(*work)
            groups = [group for group in statements.flush() if "pg_sleep" in group.label and " as " in group.label]
            found.append({group.label: (group.count, group.max_ns) for group in groups})
    first, second, *_ = found
    assert [{label: count for label, (count, _) in each.items()} for each in found] == [
        {"select pg_sleep(?) as x": 1, "select pg_sleep(?) as y": 1},
        {"select pg_sleep(?) as x": 2},
        {"select pg_sleep(?) as y": 1},
        {},
    ]
    assert first["select pg_sleep(?) as x"][1] > 50_000_000 > second["select pg_sleep(?) as x"][1] > 10_000_000


def test_by_database_user_and_kind(postgres, spawn):
    postgres.query("create database shop", "create role ada superuser login")

    def work():
        old.query("select 2").send().read()
        old.close()
        # Each of them has ended when it is asked whose queries these were.
        statements = ["create temp table a (b int)", "insert into a values (1)", "select b from a"]
        postgres.query(*["select 1"] * 31, database="shop")
        postgres.query(*statements, user="ada")

    expected = {
        "database": {"shop": 32, "postgres": 3},
        "user": {"postgres": 31, "ada": 4},
        "kind": {"SELECT": 33, "INSERT": 1, "CREATE": 1},
    }
    for by, counts in expected.items():
        old = Wire(postgres, user="ada", database="shop")
        lines, _ = lines_of(spawn, work, "postgres", "--by", by)
        assert {line[by]: line["count"] for line in lines} == counts


def test_users_of_a_server_with_the_probes_of_mysql(compile_c, spawn, wait_for_line):
    server = spawn([compile_c("mysql_usdt.c"), 97])
    wait_for_line(server, "ready")
    tracer = start_tracing(spawn, "dbstat", "mysql", "-p", str(server.pid), "--by", "user", "--json")
    go(server)
    wait_for_line(server, "queries")
    _, (line,), _ = json_lines(tracer.stdout.read())
    assert tracer.wait(30) == 0
    assert (line["user"], line["count"]) == ("ada", 97)


def test_by_database_and_user_of_mariadb(mariadb, spawn):
    mariadb.query("create or replace database shop", "create or replace user ada", "grant all on *.* to ada")

    def work():
        mariadb.query(*["select 1"] * 31)
        client = ["mariadb", "--no-defaults", f"--socket={mariadb.socket}", "--user=ada", "--database=shop"]
        subprocess.run(client, input="select 1;" * 13, text=True, check=True, stdout=subprocess.DEVNULL)
        mariadb.settle()

    for by, counts in {"database": {"shop": 13, "?": 31}, "user": {"root": 31, "ada": 13}}.items():
        lines, _ = lines_of(spawn, work, "mysql", "-p", str(mariadb.pid), "--by", by)
        assert {line[by]: line["count"] for line in lines} == counts


@pytest.mark.parametrize("by", ["user", "database"])
def test_a_server_that_does_not_say_whose_query_it_is(by, compile_c, spawn, wait_for_line):
    server = spawn([compile_c("mysqld.cc", "-O2", compiler="g++")])
    wait_for_line(server, "ready")
    assert_explained(usdtkit("dbstat", "mysql", "-p", server.pid, "--by", by), 5, by, "--by kind")
