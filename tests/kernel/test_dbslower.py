"""dbslower on real MariaDB and PostgreSQL servers: every query by count, literals hidden, errors in words."""

import csv
import shutil

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit
from processes import among_own_mounts
from programs.postgres import BINARIES, cluster

pytestmark = pytest.mark.machine


def queries_of(output, tool="dbslower"):
    header, events, summary = json_lines(output)
    assert header["schema"] == f"usdtkit.{tool}/1"
    assert (summary["received"], summary["lost"], summary["overflow"]) == (len(events), 0, 0)
    return events


def test_every_query_of_postgresql(postgres, spawn):
    tracer = start_tracing(spawn, "dbslower", "postgres", "-m", "0", "--json")
    rows = postgres.query(*(f"select {number} where 'ada' <> ''" for number in range(997)))
    events = queries_of(stop_tracing(tracer)[0])
    assert rows == [str(number) for number in range(997)]
    assert [event["query"] for event in events] == ["select ? where ? <> ?"] * 997
    assert len({event["pid"] for event in events}) == 1
    assert all(event["latency_ns"] > 0 for event in events)


def test_every_query_of_mariadb(mariadb, spawn):
    tracer = start_tracing(spawn, "dbslower", "mysql", "-p", str(mariadb.pid), "-m", "0", "--json")
    mariadb.query(*(f"select {number}, 'ada' from dual" for number in range(997)))
    events = [event["query"] for event in queries_of(stop_tracing(tracer)[0])]
    assert events == ["select ?, ? from dual"] * 997


@pytest.mark.parametrize("engine", ["mysql", "postgres"])
def test_raw_text_of_slow_queries_in_every_form(engine, mariadb, postgres, spawn):
    server, sleep = (mariadb, "select sleep(0.05)") if engine == "mysql" else (postgres, "select pg_sleep(0.05)")
    found = []
    for form in ([], ["--csv"], ["--json"]):
        tracer = start_tracing(spawn, "dbslower", engine, "-m", "50", "--raw-text", *form)
        server.query("select 1", sleep, "select 2")
        found.append(stop_tracing(tracer)[0])
    table, comma, (event,) = found[0].splitlines(), [*csv.DictReader(found[1].splitlines())], queries_of(found[2])
    assert table[0].split() == ["TIME", "PID", "LAT(ms)", "COMMAND", "ERROR", "QUERY"]
    assert [line[table[0].index("QUERY") :] for line in table[1:]] == [event["query"]]
    assert [row["query"] for row in comma] == [event["query"]]
    assert event["query"].rstrip(";") == sleep  # psql sends the semicolon too
    assert 50_000_000 <= event["latency_ns"] < 5_000_000_000


def test_prepared_statements_of_postgresql(postgres, spawn):
    tracer = start_tracing(spawn, "dbslower", "postgres", "-m", "0", "--json")
    postgres.bench("select abalone + :number from generate_series(1, 3) as abalone", 997)
    events = queries_of(stop_tracing(tracer)[0])
    text = "select abalone + $1 from generate_series(?) as abalone"
    commands = [event["command"] for event in events if event["query"] == text]
    assert (commands.count("prepare"), commands.count("execute"), len(commands)) == (1, 997, 998)


def test_queries_of_postgresql_that_fail(postgres, spawn):
    tracer = start_tracing(spawn, "dbslower", "postgres", "-m", "0", "--json")
    postgres.query(*["select 1/0"] * 97, "select 1", check=False)
    events = queries_of(stop_tracing(tracer)[0])
    assert [event["query"] for event in events] == ["select ?/?"] * 97 + ["select ?"]


def test_text_that_was_cut_within_a_literal(postgres, spawn):
    tracer = start_tracing(spawn, "dbslower", "postgres", "-m", "0", "--json")
    postgres.query("select '" + "secret" * 100 + "' as a")
    (event,) = queries_of(stop_tracing(tracer)[0])
    assert (event["query"], event["query_truncated"]) == ("select ?", True)


def test_servers_with_files_of_one_name(postgres, spawn, tmp_path):
    """As containers have them: the second finds a copy of the program where the first finds the program."""
    program = BINARIES / "postgres"
    copy = shutil.copy(program, tmp_path)
    mounted = [*among_own_mounts(f'mount --bind {copy} {program} && exec "$@"'), "sh"]
    with cluster(*mounted) as second:
        tracer = start_tracing(spawn, "dbslower", "postgres", "-m", "0", "--json")
        postgres.query(*["select 1"] * 97)
        second.query(*["select 1, 2"] * 31)
        events = queries_of(stop_tracing(tracer)[0])
    assert sorted(event["query"] for event in events) == ["select ?"] * 97 + ["select ?, ?"] * 31


def test_a_postmaster_runs_no_queries(postgres):
    done = usdtkit("dbslower", "postgres", "-p", postgres.pid)
    assert_explained(done, 2, str(postgres.pid), "backend")


def test_a_program_without_what_it_takes(stepper):
    done = usdtkit("dbslower", "mysql", "-p", stepper().pid)
    assert_explained(done, 4, "neither the probes nor the functions of mysql", "hint")


def test_phases_in_columns_of_their_own(postgres, spawn):
    tracer = start_tracing(spawn, "dbslower", "postgres", "--phases", "-m", "50")
    postgres.query("select pg_sleep(0.05) as abalone")
    table = stop_tracing(tracer)[0].splitlines()
    phases = ["PARSE(ms)", "REWRITE(ms)", "BIND(ms)", "PLAN(ms)", "EXECUTE(ms)", "COMMIT(ms)"]
    assert table[0].split() == ["TIME", "PID", "LAT(ms)", *phases, "COMMAND", "ERROR", "QUERY"]
    (line,) = (line.split() for line in table[1:] if "abalone" in line)
    assert sum(map(float, line[3:9])) == pytest.approx(float(line[2]), abs=0.04)
    assert float(line[7]) >= 50
    assert_explained(usdtkit("dbslower", "mysql", "--phases"), 2, "--phases", "postgres")
