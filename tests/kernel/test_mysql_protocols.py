"""MySQL's two protocols by their clients: as many rows as the client and the server counted, and the client's latency.

The table {client × protocol} is in CLIENTS. `versions` that no package has are in tests/programs/mysqld.cc.
"""

import json
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import mysql.connector
import pymysql
import pytest
from commandline import USDTKIT, assert_explained, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit
from processes import among_own_mounts
from programs import npm
from programs.mariadb import server

pytestmark = pytest.mark.machine

COUNTERS = ("Com_select", "Com_insert", "Com_stmt_prepare", "Com_stmt_execute", "Com_stmt_fetch")
# Runs [[how, statement, values], …], and prints how many nanoseconds each took.
NODE = """
const mysql = require('mysql2/promise');
(async () => {
  const connection = await mysql.createConnection({socketPath: process.argv[2], user: 'root'});
  const took = [];
  for (const [how, statement, values] of JSON.parse(process.argv[3])) {
    const began = process.hrtime.bigint();
    await connection[how](statement, values);
    took.push(Number(process.hrtime.bigint() - began));
  }
  await connection.end();
  console.log(JSON.stringify(took));
})();
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """node(how) -> a client that runs statements with mysql2, by connection.query or connection.execute."""
    home = tmp_path_factory.mktemp("node")
    npm.install("mysql2@3", home)
    (home / "client.js").write_text(NODE)

    def client_of(how):
        def run(server, statements):
            work = json.dumps([[how, statement, values] for statement, values in statements])
            command = ["node", home / "client.js", server.socket, work]
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=60)
            return json.loads(done.stdout)

        return run

    return client_of


def python(connect, **cursor):
    """A client that runs statements with a module of Python."""

    def run(server, statements):
        took = []
        with connect(unix_socket=str(server.socket), user="root") as connection:
            with connection.cursor(**cursor) as at:
                for statement, values in statements:
                    began = time.monotonic_ns()
                    at.execute(statement, values)
                    at.fetchall()
                    took.append(time.monotonic_ns() - began)
        return took

    return run


def command_line(server, statements):
    """mariadb's own client, whose prepared statements are those of SQL; it says no times."""
    server.query(*(statement.replace("?", str(values[0])) for statement, values in statements))
    return None


# By name: the client, the command by which its statements arrive, and how it writes a parameter.
CLIENTS = {
    "mariadb": (command_line, "query", "?"),
    "pymysql": (python(pymysql.connect), "query", "%s"),
    "mysql.connector": (python(mysql.connector.connect), "query", "%s"),
    "mysql.connector, prepared": (python(mysql.connector.connect, prepared=True), "execute", "?"),
    "mysql2, query": ("query", "query", "?"),
    "mysql2, execute": ("execute", "execute", "?"),
}


@pytest.fixture
def traced(mariadb, spawn):
    """traced(work, *options) -> what `work` returned, the rows by command, and how much the server's counters rose."""

    def run(work, *options):
        before = counters(mariadb)
        tracer = start_tracing(spawn, *("dbslower", "mysql", "-p", str(mariadb.pid), "-m", "0", "--json", *options))
        result = work()
        mariadb.settle()
        _, events, summary = json_lines(stop_tracing(tracer)[0])
        assert (summary["received"], summary["lost"]) == (len(events), 0)
        rows = {}
        for event in events:
            rows.setdefault(event["command"], []).append(event)
        after = counters(mariadb)
        return result, rows, {name: after[name] - before[name] for name in COUNTERS}

    return run


def counters(server):
    lines = server.query(f"show global status where variable_name in {COUNTERS}")
    return {name: int(value) for name, value in map(str.split, lines)}


@pytest.mark.parametrize("name", CLIENTS)
def test_as_many_statements_as_the_client_and_the_server_counted(name, mariadb, traced, request):
    client, command, parameter = CLIENTS[name]
    if isinstance(client, str):
        client = request.getfixturevalue("node")(client)
    # The shape tells the test's statements from what a client asks by itself.
    work = [(f"select {parameter} as abalone", [number]) for number in range(97)]
    work += [(f"select sleep({parameter}) as abalone", [0.25])]
    took, rows, rose = traced(lambda: client(mariadb, work))
    own = [event for event in rows[command] if "abalone" in event["query"]]
    assert Counter(event["query"] for event in own) == {
        "select ? as abalone": 97,
        "select sleep(?) as abalone": 1,
    }
    asked = [event for event in rows[command] if event["query"].upper().startswith("SELECT")]
    prepared = [event["query"] for event in rows.get("prepare", ())]
    assert rose["Com_select"] == len(asked)
    assert rose["Com_stmt_execute"] == len(rows.get("execute", ())) == (98 if command == "execute" else 0)
    assert rose["Com_stmt_prepare"] == len(prepared)  # some clients prepare a statement once, some for each execution
    assert set(prepared) == ({event["query"] for event in own} if command == "execute" else set())
    latency = own[-1]["latency_ns"]
    assert 250_000_000 <= latency < 2_000_000_000
    if took is not None:
        assert abs(took[-1] - latency) <= 0.1 * took[-1]


def test_an_insert_of_many_rows_at_once(mariadb, traced, compile_c):
    client = compile_c("statements.c", "-I/usr/include/mariadb", "-lmariadb")
    mariadb.query("create or replace database shop", "create table shop.stock (item int)")
    done, rows, _ = traced(lambda: subprocess.run([client, mariadb.socket, "bulk", "31"], capture_output=True))
    assert done.stdout == b"rows 217\n"
    assert {event["query"] for event in rows["bulk"]} == {"insert into shop.stock values (?)"}
    assert (len(rows["bulk"]), len(rows["prepare"])) == (31, 1)


def test_rows_that_are_fetched_from_a_cursor(mariadb, traced, compile_c):
    client = compile_c("statements.c", "-I/usr/include/mariadb", "-lmariadb")
    mariadb.query("create or replace database shop")
    done, rows, rose = traced(lambda: subprocess.run([client, mariadb.socket, "cursor", "7"], capture_output=True))
    assert done.stdout == b"rows 679\n"
    assert [event["query"] for event in rows["execute"]] == ["select seq from shop.seq_1_to_97"] * 7
    assert len(rows["fetch"]) == rose["Com_stmt_fetch"] >= 7 * 10  # of 10 rows each


def test_errors_have_their_number(mariadb, traced):
    """In both protocols; the text of an execution that fails is known as well."""

    def work():
        with mysql.connector.connect(unix_socket=str(mariadb.socket), user="root") as connection:
            with connection.cursor(prepared=True) as at:
                for text, error in ((insert, 1062), ("select ? from shop.nothing", 1146)):
                    with pytest.raises(mysql.connector.Error, match=str(error)):
                        at.execute(text, [7])
            with connection.cursor() as at, pytest.raises(mysql.connector.Error, match="1146"):
                at.execute("select 1 from shop.nothing")

    insert = "insert into shop.stock values (?)"
    mariadb.query("create or replace database shop", "create table shop.stock (item int primary key)")
    mariadb.query("insert into shop.stock values (7)")
    _, rows, _ = traced(work)
    failed = {command: [(row["query"], row["error"]) for row in rows[command] if row["error"]] for command in rows}
    assert failed == {
        "query": [("select ? from shop.nothing", "1146")],
        "prepare": [("select ? from shop.nothing", "1146")],
        "execute": [(insert, "1062")],
    }


SYSBENCH = ["sysbench", "oltp_read_only", "--db-driver=mysql", "--mysql-user=root", "--mysql-db=shop", "--tables=1"]
SYSBENCH += ["--table-size=100", "--threads=1", "--time=0"]


@pytest.mark.parametrize(("mode", "command"), [("disable", "query"), ("auto", "execute")])
def test_sysbench_in_both_modes(mode, command, mariadb, traced):
    """Each of its transactions has 14 selects, a begin and a commit. "auto" is its default."""
    sysbench = [*SYSBENCH, f"--mysql-socket={mariadb.socket}", f"--db-ps-mode={mode}"]
    mariadb.query("create or replace database shop")
    subprocess.run([*sysbench, "prepare"], check=True, stdout=subprocess.DEVNULL)
    done, rows, rose = traced(lambda: subprocess.run([*sysbench, "--events=31", "run"], capture_output=True, text=True))
    assert re.search(r"queries performed:\s+read: +(\d+)", done.stdout)[1] == str(31 * 14)
    kinds = Counter(event["query"].split()[0].upper() for event in rows[command])
    assert kinds["SELECT"] == rose["Com_select"] == 31 * 14
    assert kinds["BEGIN"] == kinds["COMMIT"] == 31
    assert rose["Com_stmt_execute"] == len(rows.get("execute", ()))
    assert rose["Com_stmt_prepare"] == len(rows.get("prepare", ()))


def test_executions_are_counted_and_not_their_preparation(mariadb, spawn):
    """This client prepares a statement again for each execution."""
    client = CLIENTS["mysql.connector, prepared"][0]
    before = counters(mariadb)
    tracer = start_tracing(spawn, *("dbstat", "mysql", "-p", str(mariadb.pid), "--top", "20", "--json"))
    client(mariadb, [("select ? as abalone", [number]) for number in range(97)])
    mariadb.settle()
    _, lines, summary = json_lines(stop_tracing(tracer)[0])
    after = counters(mariadb)
    assert after["Com_stmt_execute"] - before["Com_stmt_execute"] == 97
    assert after["Com_stmt_prepare"] - before["Com_stmt_prepare"] > 0
    assert [line["count"] for line in lines if "abalone" in line["statement"]] == [97]
    assert (summary["lost"], summary["full"]) == (0, 0)


@pytest.mark.parametrize("flags", [[], ["-DMARIADB"]])
def test_versions_by_their_signatures(flags, spawn, compile_c, wait_for_line, tmp_path):
    """MySQL 5.7 and 8, and MariaDB without accessors: the text of an execution is what the log is given."""
    server = spawn([shutil.copy(compile_c("mysqld.cc", "-O2", *flags, compiler="g++"), tmp_path / "mysqld"), 97])
    wait_for_line(server, "ready")
    tracer = start_tracing(spawn, "dbslower", "mysql", "-m", "0", "--json", "--raw-text", "-p", str(server.pid))
    go(server)
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert (summary["received"], summary["lost"], summary["unmatched"]) == (6 * 97, 0, 0)
    assert Counter((event["command"], event["query"]) for event in events) == {
        ("query", "select 'at once'"): 97,
        ("prepare", "select price from stock where item = ?"): 97,
        ("execute", "select price from stock where item = ?"): 97,
        ("execute", None): 97,
        ("fetch", None): 97,
        ("apply", "delete from stock"): 97,
    }
    assert all(event["latency_ns"] >= 100_000 for event in events)


PROGRAMS = (
    *("create or replace database shop", "create table shop.stock (item int)", "create table shop.log (item int)"),
    "create trigger shop.logged after insert on shop.stock for each row insert into shop.log values (new.item)",
    "create procedure shop.fill(number int) begin declare i int default 0; "
    "while i < number do insert into shop.stock values (i); set i = i + 1; end while; delete from shop.stock; end",
)


def test_statements_within_procedures_and_triggers(mariadb, traced):
    """Each has its own text and is part of the CALL, however that is sent; by itself a CALL is one row."""
    with pymysql.connect(unix_socket=str(mariadb.socket), user="root") as connection, connection.cursor() as at:
        for statement in PROGRAMS:
            at.execute(statement)
    mariadb.settle()

    def work():
        with mysql.connector.connect(unix_socket=str(mariadb.socket), user="root") as connection:
            for prepared, command in ((False, "call shop.fill(7)"), (True, "call shop.fill(?)")):
                with connection.cursor(prepared=prepared) as at:
                    at.execute(command, [7] if prepared else None)
                    while at.nextset():
                        pass

    _, rows, _ = traced(work, "--nested")
    calls = [row for command in ("query", "execute") for row in rows[command] if "call" in row["query"]]
    assert [row["query"] for row in calls] == ["call shop.fill(?)"] * 2
    texts = Counter(re.sub(r" ?NAME_CONST\(\?\)|\bi\b|NEW.item|new.item", "?", row["query"]) for row in rows["nested"])
    assert texts == {
        "insert into shop.stock values (?)": 14,
        "insert into shop.log values (?)": 14,
        "delete from shop.stock": 2,
    }
    assert sum(row["latency_ns"] for row in rows["nested"]) < 2 * sum(row["latency_ns"] for row in calls)
    assert "nested" not in traced(work)[1]


def test_a_server_that_does_not_say_where_procedures_have_their_statements(mariadb, spawn, compile_c, wait_for_line):
    server = spawn([compile_c("mysqld.cc", "-O2", compiler="g++"), 1])
    wait_for_line(server, "ready")
    for pid, is_said in ((server.pid, True), (mariadb.pid, False)):
        said = usdtkit("dbslower", "mysql", "--nested", "-p", pid, "-d", "0.1").stderr
        assert ("statements within procedures are not shown" in said) == is_said


def test_what_replication_applies(spawn):
    """Statements are shown; changes of rows have none, and are counted."""
    address = "127.0.0.1"
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    binary_log = ["--log-bin", "--binlog-format=statement", f"--bind-address={address}", f"--port={port}"]
    with server("--server-id=1", *binary_log) as primary, server("--server-id=2", "--skip-networking") as replica:
        primary.query("create user copy identified by 'copied'", "grant replication slave on *.* to copy")
        primary.query("create database shop", "create table shop.stock (item int)")
        source = f"master_host='{address}', master_port={port}, master_user='copy', master_password='copied'"
        replica.query(f"change master to {source}, master_use_gtid=slave_pos", "start slave")
        await_replica(primary, replica)
        tracer = start_tracing(spawn, "dbslower", "mysql", "-p", str(replica.pid), "-m", "0", "--json")
        primary.query(*(f"insert into shop.stock values ({number})" for number in range(97)))
        primary.query("set session binlog_format = row", *["insert into shop.stock values (7)"] * 31)
        await_replica(primary, replica)
        _, events, summary = json_lines(stop_tracing(tracer)[0])
    applied = Counter(event["query"] for event in events if event["command"] == "apply")
    assert applied["insert into shop.stock values (?)"] == 97
    assert [(missed["what"], missed["count"]) for missed in summary["unseen"]] == [("replicated row event", 31)]


def await_replica(primary, replica):
    """Wait until the replica has applied all that the primary has in its binary log."""
    [position] = primary.query("select @@gtid_binlog_pos")
    assert replica.query(f"select master_gtid_wait('{position}', 30)") == ["0"]


def test_servers_that_start_later(mariadb, spawn, compile_c, wait_for_line, tmp_path):
    """Other versions, and a copy of the same one, as a container has it, beside one that runs from the beginning."""
    flags = {"mysql": [], "old": ["-DMARIADB"]}
    copies = {name: tmp_path / name / "mysqld" for name in flags}
    for name, copy in copies.items():
        copy.parent.mkdir()
        shutil.copy(compile_c("mysqld.cc", "-O2", *flags[name], compiler="g++"), copy)
    home = Path(tempfile.mkdtemp(prefix="usdtkit-later-"))  # where the user mysql may go
    try:
        home.chmod(0o755)
        program = shutil.copy(mariadb.binary, home / "mariadbd")
        tracer = start_tracing(spawn, "dbslower", "mysql", "-m", "0", "--json")
        fakes = [spawn([copy, 31]) for copy in copies.values()]
        for fake in fakes:
            wait_for_line(fake, "ready")
        with server(program=str(program)) as later:
            for path in (*copies.values(), program):
                wait_for_line(tracer, f"found {path}", stream="stderr")
            for fake in fakes:
                go(fake)
                wait_for_line(fake, "served 31")
            later.query(*["select 'abalone'"] * 31)
            mariadb.query(*["select 'abalone'"] * 31)
            with mysql.connector.connect(unix_socket=str(later.socket), user="root") as connection:
                with connection.cursor(prepared=True) as at:
                    at.execute("select ? as abalone", [7])
                    at.fetchall()
            later.settle()
            _, events, _ = json_lines(stop_tracing(tracer)[0])
    finally:
        shutil.rmtree(home)
    counts = Counter((event["pid"], event["command"], event["query"]) for event in events)
    for server_ in (mariadb, later):
        assert counts[server_.pid, "query", "select ?"] == 31
    assert counts[later.pid, "execute", "select ? as abalone"] == 1
    for fake in fakes:
        assert counts[fake.pid, "execute", "select price from stock where item = ?"] == 31
        assert counts[fake.pid, "apply", "delete from stock"] == 31


# Runs a command where no other process can be seen.
OWN_PROCESSES = 'exec unshare --pid --fork sh -ec \'mount -t proc proc /proc; exec "$@"\' sh "$@"'
ALONE = [*among_own_mounts(OWN_PROCESSES), "sh"]


def test_no_server_runs():
    assert_explained(usdtkit("dbslower", "mysql", prefix=ALONE), 4, "no mysqld or mariadbd runs here", "--wait")


def test_waiting_for_the_first_server(spawn, compile_c, wait_for_line, tmp_path):
    program = shutil.copy(compile_c("mysqld.cc", "-O2", compiler="g++"), tmp_path / "mysqld")
    tracer = shlex.join(
        [*USDTKIT, "dbslower", "mysql", "--wait", "-m", "0", "--json", "--output", str(tmp_path / "rows")]
    )
    script = f"{tracer} & read line; {program} 31; kill -TERM $!; wait $!"
    shell = spawn([*ALONE, "sh", "-c", script], stderr=subprocess.PIPE)
    wait_for_line(shell, "waiting: no mysqld or mariadbd runs here", stream="stderr")
    go(shell)  # the server starts
    wait_for_line(shell, "Tracing", stream="stderr")
    go(shell)
    assert shell.wait(30) == 0
    _, events, summary = json_lines((tmp_path / "rows").read_text())
    counts = Counter((event["command"], event["query"]) for event in events)
    assert counts["execute", "select price from stock where item = ?"] == counts["apply", "delete from stock"] == 31
    assert summary["lost"] == 0
