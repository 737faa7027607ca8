"""pgphases on a real PostgreSQL: every execution counted, its time in the right phase, in both protocols."""

import csv

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit

pytestmark = pytest.mark.machine


def statements(output):
    header, lines, summary = json_lines(output)
    assert header["schema"] == "usdtkit.pgphases/1"
    assert (summary["lost"], summary["full"], summary["overflow"]) == (0, 0, 0)
    return {line["statement"]: line for line in lines}


def test_phases_of_simple_statements(postgres, spawn):
    tracer = start_tracing(spawn, "pgphases", "--json")
    postgres.query(
        *(f"select {n} as a" for n in range(97)), *["select pg_sleep(0.01)"] * 13, "select from nothing", check=False
    )
    found = statements(stop_tracing(tracer)[0])
    assert next(iter(found)) == "select pg_sleep(?)"  # the costliest first
    assert {statement: line["count"] for statement, line in found.items()} == {
        "select ? as a": 97,
        "select pg_sleep(?)": 13,
        "select from nothing": 0,  # parsed, and refused
    }
    slept = found["select pg_sleep(?)"]
    assert slept["execute_ns"] > 13 * 10_000_000 > slept["parse_ns"] + slept["rewrite_ns"] + slept["plan_ns"] > 0
    assert found["select from nothing"]["execute_ns"] == 0 < found["select from nothing"]["parse_ns"]


def test_prepared_statements_and_their_parameters(postgres, spawn):
    found = []
    for protocol in ("prepared", "extended"):
        tracer = start_tracing(spawn, "pgphases", "--json")
        postgres.bench("select abalone + :number from generate_series(1, 3) as abalone", 97, protocol)
        found.append(statements(stop_tracing(tracer)[0])["select abalone + $1 from generate_series(?) as abalone"])
    # The first kind is parsed once, in a trip of its own, the second each time.
    assert [line["count"] for line in found] == [97, 97]
    assert all(min(line["parse_ns"], line["plan_ns"], line["execute_ns"]) > 0 for line in found)


def test_statements_within_a_function_belong_to_its_caller(postgres, spawn):
    body = "begin for i in 1..7 loop perform pg_sleep(0.01), i; end loop; end"
    postgres.query(f"create function doze() returns void language plpgsql as $$ {body} $$")
    tracer = start_tracing(spawn, "pgphases", "--json")
    postgres.query("select doze()")
    (line,) = statements(stop_tracing(tracer)[0]).values()
    assert (line["statement"], line["count"]) == ("select doze()", 1)
    assert line["execute_ns"] >= 70_000_000


def test_the_table_csv_and_the_top(postgres, spawn):
    for form in ([], ["--csv"]):
        tracer = start_tracing(spawn, "pgphases", "--top", "1", "--raw-text", *form)
        postgres.query("select 1", *["select pg_sleep(0.02)"] * 3)
        output = stop_tracing(tracer)[0]
        if form:
            (row,) = csv.DictReader(output.splitlines())
            assert (row["count"], row["statement"].rstrip(";")) == ("3", "select pg_sleep(0.02)")
        else:
            _, heading, row = output.splitlines()
            phases = ["PARSE(ms)", "REWRITE(ms)", "BIND(ms)", "PLAN(ms)", "EXECUTE(ms)", "COMMIT(ms)"]
            assert heading.split() == ["COUNT", *phases, "STATEMENT"]
            assert row.split(maxsplit=7)[0] == "3"
            assert row.split(maxsplit=7)[7].rstrip(";") == "select pg_sleep(0.02)"


def test_a_program_without_the_probes():
    assert_explained(usdtkit("pgphases", "-x", "/bin/bash"), 4, "PortalRun", "/bin/bash")
