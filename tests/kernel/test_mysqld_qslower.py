"""mysqld_qslower on a real MariaDB server, and on a program with MySQL's own probes."""

import shutil
import subprocess

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, stop_tracing

pytestmark = pytest.mark.machine

QUESTIONS = "show status like 'Questions'"


def queries_of(server, output, unseen=()):
    """The events of one server, which may not be the only one that runs here."""
    header, events, summary = json_lines(output)
    assert header["schema"] == "usdtkit.mysqld_qslower/1"
    assert (summary["received"], summary["lost"]) == (len(events), 0)
    assert [(missed["what"], missed["count"]) for missed in summary["unseen"]] == [*unseen]
    return [event for event in events if event["pid"] == server.pid]


def test_every_query_that_a_client_sends(mariadb, spawn):
    tracer = start_tracing(spawn, "mysqld_qslower", "--json", "--raw-text", mariadb.pid, "0")
    sent = [QUESTIONS, *(f"select {number} from dual" for number in range(997)), QUESTIONS]
    before, *rows, after = mariadb.query(*sent)
    events = queries_of(mariadb, stop_tracing(tracer)[0])
    assert rows == [str(number) for number in range(997)]
    assert int(after.split()[1]) - int(before.split()[1]) == 998  # the server counted as many
    assert [event["query"] for event in events] == sent
    assert all(event["latency_ns"] > 0 for event in events)


def test_only_slow_queries_of_the_server_that_runs_here(mariadb, spawn):
    tracer = start_tracing(spawn, "mysqld_qslower", "-m", "50", "--json")
    mariadb.query("select 1", "select sleep(0.05)", "select 2")
    (event,) = queries_of(mariadb, stop_tracing(tracer)[0])
    assert event["query"] == "select sleep(?)"
    assert 50_000_000 <= event["latency_ns"] < 5_000_000_000


def test_long_and_odd_queries(mariadb, spawn):
    tracer = start_tracing(spawn, "mysqld_qslower", "-p", mariadb.pid, "-m", "0", "--raw-text")
    long = "select '" + "x" * 500 + "'"
    mariadb.query(long, "select '\u202etxt.\x1b[2J'", "select\n1")
    output, messages = stop_tracing(tracer)
    heading, *lines = output.splitlines()
    assert heading.split() == ["TIME", "PID", "LAT(ms)", "COMMAND", "ERROR", "QUERY"]
    shown = (long[:256] + "…", "select '\\u202etxt.\\x1b[2J'", "select\\x0a1")
    assert [line.split(maxsplit=5)[3:] for line in lines] == [["query", "-", text] for text in shown]
    assert messages == "received 3, lost 0, from 1 file in 1 process\n"


def test_a_nul_does_not_end_a_statement(mariadb, spawn):
    """The server reads it to its end, and so whoever looks for what was sent must see all of it."""
    tracer = start_tracing(spawn, "mysqld_qslower", "-p", mariadb.pid, "-m", "0", "--json", "--raw-text")
    client = ["mariadb", "--no-defaults", f"--socket={mariadb.socket}", "--user=root", "--batch", "--binary-mode"]
    sent = "select length('a\0b'), 997"
    done = subprocess.run([*client, "--skip-column-names"], input=f"{sent};\n", text=True, capture_output=True)
    assert done.stdout == "3\t997\n"
    assert [event["query"] for event in queries_of(mariadb, stop_tracing(tracer)[0])] == [sent]


def test_a_server_with_probes_found_by_its_name(compile_c, tmp_path, spawn, wait_for_line):
    binary = tmp_path / "mysqld"
    shutil.copy(compile_c("mysql_usdt.c"), binary)
    server = spawn([binary, 997])
    wait_for_line(server, "ready")
    tracer = start_tracing(spawn, "mysqld_qslower", "-m", "0", "--json", "--raw-text")
    go(server)
    assert wait_for_line(server, "queries") == "queries 997 traced 997"
    events = queries_of(server, stop_tracing(tracer)[0], [("prepared execution", 99)])
    assert [event["query"] for event in events] == [f"select {number} from stock" for number in range(997)]


def test_a_server_with_probes_that_ends(compile_c, spawn, wait_for_line):
    server = spawn([compile_c("mysql_usdt.c"), 97, 2000])
    wait_for_line(server, "ready")
    tracer = start_tracing(spawn, "mysqld_qslower", "--json", server.pid, "2")
    go(server)
    assert wait_for_line(server, "queries") == "queries 97 traced 97"
    events = queries_of(server, end_of_tracing(tracer)[0], [("prepared execution", 9)])
    assert len(events) == 97
    assert min(event["latency_ns"] for event in events) >= 2_000_000
