"""pglockwaits on a real PostgreSQL: who waits for a table, a row, an advisory lock, how long, with which statement."""

import csv

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit

pytestmark = pytest.mark.machine


@pytest.fixture
def wait_for_lock(postgres, spawn, wait_for_line):
    """wait_for_lock(take, statement): one client holds what `take` locks, until another waits with `statement`."""

    def run(take, statement):
        holder = spawn([postgres.psql, "--no-psqlrc", "-qAt"], env=postgres.environment)
        say(holder, f"begin; {take}; select 'holding'")
        wait_for_line(holder, "holding")
        waiter = spawn([postgres.psql, "--no-psqlrc", "-qAt"], env=postgres.environment)
        say(waiter, f"select 'pid ' || pg_backend_pid(); {statement}")
        pid = int(wait_for_line(waiter, "pid").split()[1])
        # The holder itself sees when the other one waits: only pg_locks says so.
        waiting = f"exists (select from pg_locks where pid = {pid} and not granted)"
        say(holder, f"do $$ begin while not {waiting} loop perform pg_sleep(0.002); end loop; end $$")
        say(holder, "select pg_sleep(0.03); commit")
        for client in (waiter, holder):
            client.stdin.close()
            assert client.wait(60) == 0
        return pid

    return run


def say(client, text):
    client.stdin.write(f"{text};\n")
    client.stdin.flush()


def waits(output):
    header, events, summary = json_lines(output)
    assert header["schema"] == "usdtkit.pglockwaits/2"
    assert (summary["lost"], summary["overflow"], summary["abandoned"]) == (0, 0, 0)
    return events


@pytest.fixture
def stock(postgres):
    postgres.query("create table stock (item int, number int)", "insert into stock values (42, 7)")
    (oid,) = postgres.query("select 'stock'::regclass::oid")
    yield oid
    postgres.query("drop table stock")


def test_a_table_a_row_and_an_advisory_lock(wait_for_lock, stock, spawn):
    tracer = start_tracing(spawn, "pglockwaits", "--json")
    pids = [
        wait_for_lock("lock table stock in access exclusive mode", "select 1 from stock"),
        wait_for_lock("update stock set number = 1", "update stock set number = 2 where item = 42"),
        wait_for_lock("select pg_advisory_xact_lock(97)", "select pg_advisory_lock(97)"),
    ]
    events = waits(stop_tracing(tracer)[0])
    assert [(event["pid"], event["lock"], event["mode"], event["statement"]) for event in events] == [
        (pids[0], "relation", "AccessShare", "select ? from stock"),
        (pids[1], "transactionid", "Share", "update stock set number = ? where item = ?"),
        (pids[2], "advisory", "Exclusive", "select pg_advisory_lock(?)"),
    ]
    assert events[0]["target"].split("/")[1] == stock
    assert all(30_000_000 <= event["latency_ns"] < 30_000_000_000 for event in events)


def test_the_table_and_csv(wait_for_lock, stock, spawn):
    for form in ([], ["--csv"]):
        tracer = start_tracing(spawn, "pglockwaits", "--raw-text", "-m", "30", *form)
        pid = wait_for_lock("lock table stock", "select 1 from stock")
        output = stop_tracing(tracer)[0]
        if form:
            (row,) = csv.DictReader(output.splitlines())
            assert (row["pid"], row["lock"], row["statement"]) == (str(pid), "relation", "select 1 from stock;")
        else:
            heading, line = output.splitlines()
            assert heading.split() == ["TIME", "PID", "LAT(ms)", "LOCK", "MODE", "TARGET", "STATEMENT"]
            assert line.split(maxsplit=6)[1] == str(pid)
            assert line.split(maxsplit=6)[3:5] == ["relation", "AccessShare"]
            assert line.split(maxsplit=6)[6] == "select 1 from stock;"


def test_lightweight_locks_under_load(postgres, spawn):
    tracer = start_tracing(spawn, "pglockwaits", "--lwlocks", "--json")
    for _ in range(7):  # one round may find the log free each time
        postgres.bench("select txid_current()", 200, clients=8)
    events = waits(stop_tracing(tracer)[0])
    assert events, "eight writers never waited for the log"
    assert {"WALWrite", "XidGen", "ProcArray"} & {event["lock"] for event in events}
    assert {event["mode"] for event in events} <= {"exclusive", "shared", "until free"}
    assert all(event["count"] > 0 and event["total_ns"] > 0 for event in events)


def test_a_program_without_the_probes():
    assert_explained(usdtkit("pglockwaits", "-x", "/bin/bash"), 4, "postgresql:lock__wait__start", "/bin/bash")
