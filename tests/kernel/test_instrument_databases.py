"""SQL drivers and their real servers: what the probes say is what the program itself has counted, each call once."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from processes import let_end, let_work
from pythons import environment, tree_for, versions

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
FIELDS = {
    "query__start": ("query",),
    "query__done": ("query", "rows", "error"),
    "connect": ("host", "database", "error"),
    "transaction": ("action", "error"),
    "rows__fetched": ("method", "rows", "error"),
}

# What each program begins with. It says after each call what it has done and got, by `did`.
BEGIN = r"""
import collections, json, sys, time
where = json.loads(sys.argv[1])
counted = collections.Counter()
def did(*what, times=1):
    counted[json.dumps(what)] += times
def queried(text, rows=-1, error="", times=1):
    did("query__start", text, times=times)
    did("query__done", text, rows, error, times=times)
def connected(database, error=""):
    did("connect", where.get("host", ""), database, error)
def ended(action, error="", times=1):
    did("transaction", action, error, times=times)
def fetched(method, rows, error="", times=1):
    did("rows__fetched", method, rows, error, times=times)
    return rows
def failing(error, call, *args):
    try:
        call(*args)
    except error as raised:
        return type(raised).__name__
    raise AssertionError("it did not fail")
def ready():
    from usdtkit.instrument import watcher
    print("ready", flush=True)
    sys.stdin.readline()
    probes = ["dbapi:" + name for name in ("query__start", "query__done", "connect", "transaction", "rows__fetched")]
    while not watcher.traced(probes) >= set(probes):
        time.sleep(0.001)
"""
END = """
print("done", json.dumps(list(counted.items())), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def check(spawn, wait_for_line):
    """check(program, where) runs the program with what is at `where`, traced, and compares; returns the events."""

    def run(program, where=None, system="", python=None, tree=ROOT, begin="-m usdtkit.run --with dbapi"):
        command = [python or sys.executable, *begin.split(), "-c", BEGIN + program + END, json.dumps(where or {})]
        process = spawn(command, env=environment(str(tree)), cwd="/", stderr=subprocess.PIPE)
        wait_for_line(process, "ready", timeout=60)
        with trace.Session(pid=process.pid, string_size=200) as session:
            for name, fields in FIELDS.items():
                latency = () if name == "query__start" else ("latency_ns",)
                session.usdt(f"dbapi:{name}").emit("system", *fields, *latency)
            session.start()
            said = let_work(process)
            events = list(session.drain())
            summary = session.summary()
        let_end(process)
        assert (summary.lost, summary.rejected) == (0, 0)
        seen = Counter()
        for event in events:
            name = event.probe.partition(":")[2]
            seen[(name, *(getattr(event, field) for field in FIELDS[name]))] += 1
        expected = Counter({tuple(json.loads(key)): count for key, count in json.loads(said)})
        missing, surplus = expected - seen, seen - expected
        assert (missing, surplus) == (Counter(), Counter())
        assert {event.system for event in events} == {system}
        assert all(0 <= event.latency_ns < 60e9 for event in events if "__start" not in event.probe)
        return seen

    return run


SQLITE = r"""
import sqlite3
OPEN = sqlite3.connect(":memory:", isolation_level=None)
class Cursor(sqlite3.Cursor):
    def execute(self, *args):
        return super().execute(*args)
class Connection(sqlite3.Connection):
    def cursor(self, factory=Cursor):
        return super().cursor(factory)
sqlite3.register_adapter(complex, str)
sqlite3.register_converter("complex", lambda text: complex(text.decode()))
ready()

# connections and cursors that were there before, and of all factories
for connection in (OPEN, sqlite3.connect(":memory:"), sqlite3.dbapi2.connect(":memory:", factory=Connection)):
    if connection is not OPEN:
        connected(":memory:")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE orders (id integer, customer text)")
    queried("CREATE TABLE orders (id integer, customer text)")
    for number in range(500):
        cursor.execute("INSERT INTO orders VALUES (?, ?)", (number, "ada"))
        queried("INSERT INTO orders VALUES (?, ?)", 1)
    rows = connection.execute("SELECT id FROM orders")
    queried("SELECT id FROM orders")
    assert iter(rows) is rows and isinstance(rows, sqlite3.Cursor)
    fetched("fetchone", len([rows.fetchone()]))
    fetched("fetchmany", len(rows.fetchmany(7)))
    fetched("__next__", 1, times=len(list(rows)))
    fetched("__next__", 0)
    assert rows.fetchone() is None
    fetched("fetchone", 0)
    connection.executemany("INSERT INTO orders VALUES (?, ?)", [(number, "grace") for number in range(7)])
    queried("INSERT INTO orders VALUES (?, ?)", 7)
    with connection:
        connection.execute("UPDATE orders SET customer = 'eve'")
        queried("UPDATE orders SET customer = 'eve'", 507)
    if connection is not OPEN:
        ended("commit")
        connection.execute("DELETE FROM orders")
        queried("DELETE FROM orders", 507)
        connection.rollback()
        ended("rollback")
    connection.commit()  # there is nothing to commit
    fetched("fetchall", len(cursor.execute("SELECT * FROM orders").fetchall()))
    queried("SELECT * FROM orders")
    error = failing(sqlite3.OperationalError, cursor.execute, "SELECT * FROM nothing")
    queried("SELECT * FROM nothing", -1, error)
    cursor.executescript("SELECT 1; SELECT 2")
    queried("SELECT 1; SELECT 2")
    connection.executescript("SELECT 3")
    queried("SELECT 3")
    try:
        with connection:
            connection.execute("BEGIN")
            queried("BEGIN")
            raise KeyError
    except KeyError:
        ended("rollback")

# all else is as it was
url = "file:shop?mode=memory&cache=private"
connection = sqlite3.connect(url, uri=True, detect_types=sqlite3.PARSE_COLNAMES)
connected("file:shop")
connection.row_factory = sqlite3.Row
row = connection.execute('SELECT ? AS "c [complex]"', (1j,)).fetchone()
queried('SELECT ? AS "c [complex]"')
fetched("fetchone", 1)
assert (row["c"], row.keys()) == (1j, ["c"]) and isinstance(row, sqlite3.Row)
assert type(connection) is sqlite3.Connection and type(connection.cursor()) is sqlite3.Cursor
error = failing(sqlite3.OperationalError, sqlite3.connect, "/nowhere/at/all")
connected("/nowhere/at/all", error)
assert failing(TypeError, connection.cursor().execute) == "TypeError"
queried("", -1, "TypeError")
if sys.version_info >= (3, 12):
    connection = sqlite3.connect(":memory:", autocommit=False)
    connected(":memory:")
    connection.execute("CREATE TABLE a (b)")
    queried("CREATE TABLE a (b)")
    connection.commit()
    ended("commit")
    with connection:
        connection.execute("INSERT INTO a VALUES (1)")
        queried("INSERT INTO a VALUES (1)", 1)
    ended("commit")
    connection.autocommit = True
    connection.execute("BEGIN")
    queried("BEGIN")
    with connection:
        pass
    assert connection.in_transaction
"""


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


@pytest.mark.parametrize("version", versions())
def test_sqlite(version, trees, check):
    python, tree = trees(version)
    check(SQLITE, system="sqlite", python=python, tree=tree)


# The same for psycopg's two kinds of classes: `await` is taken out for those that are not asynchronous.
PSYCOPG = r"""
import asyncio, contextlib, itertools, psycopg
from psycopg import sql
async def main():
    OPEN = await Connection.connect(**where, autocommit=True)
    ready()
    # the function of the module, and the method of the class
    if Connection is psycopg.Connection:
        psycopg.connect(**where).close()
        connected(where["dbname"])
    connection = await Connection.connect(f"host={where['host']} user={where['user']}", dbname=where["dbname"])
    connected(where["dbname"])
    error = ""
    try:
        await Connection.connect(**{**where, "dbname": "nothing"})
    except psycopg.OperationalError as raised:
        error = type(raised).__name__
    connected("nothing", error)
    await connection.rollback()  # there is no transaction
    cursor = OPEN.cursor()
    await cursor.execute("CREATE TEMPORARY TABLE orders (id integer, customer text)")
    queried("CREATE TEMPORARY TABLE orders (id integer, customer text)")
    insert = "INSERT INTO orders VALUES (%s, %s)"
    for number in range(2000):
        await cursor.execute(insert, (number, "ada"))
        queried(insert, 1)
    await cursor.executemany(insert, [(number, "grace") for number in range(7)])
    queried(insert, 7)
    select = "SELECT id FROM orders"
    rows = await OPEN.execute(select)
    queried(select, 2007)
    fetched("fetchone", len([await rows.fetchone()]))
    fetched("fetchmany", len(await rows.fetchmany(7)))
    fetched(NEXT, 1, times=len([row async for row in rows]))
    fetched(NEXT, 0)
    assert await rows.fetchone() is None
    fetched("fetchone", 0)
    fetched("fetchall", len(await (await cursor.execute(select)).fetchall()))
    queried(select, 2007)
    # composed of parts: no value of the program's is shown
    names = sql.Identifier("id"), sql.Identifier("orders")
    part = sql.SQL("SELECT {} FROM {} WHERE customer = {}").format(*names, sql.Literal("eve"))
    await cursor.execute(part)
    queried('SELECT "id" FROM "orders" WHERE customer = %s', 0)
    await cursor.execute(b"SELECT 1")
    queried("SELECT 1", 1)
    try:
        await cursor.execute("SELECT * FROM nothing")
    except psycopg.errors.UndefinedTable as raised:
        queried("SELECT * FROM nothing", -1, type(raised).__name__)

    # stream, whole and left early
    streamed = len([row async for row in cursor.stream(select)])
    queried(select, streamed)
    fetched("stream", streamed)
    stream = cursor.stream(select)
    assert len([row async for row in islice(stream, 7)]) == 7
    await stream.aclose()
    queried(select, 7)
    fetched("stream", 7)

    # copy, both ways
    async with cursor.copy("COPY orders FROM STDIN") as copy:
        for number in range(13):
            await copy.write_row((number, "turing"))
    queried("COPY orders FROM STDIN", 13)
    async with cursor.copy("COPY orders TO STDOUT") as copy:
        assert len([row async for row in copy.rows()]) == 2020
    queried("COPY orders TO STDOUT", 2020)
    try:
        async with cursor.copy("COPY orders FROM STDIN") as copy:
            raise KeyError
    except KeyError:
        queried("COPY orders FROM STDIN", -1, "KeyError")

    # pipeline
    async with OPEN.pipeline():
        for number in range(31):
            await cursor.execute(insert, (number, "pipe"))
            queried(insert)
        await cursor.execute(select)
        queried(select)
        fetched("fetchall", len(await cursor.fetchall()))

    # transactions: implicit, and blocks
    await connection.execute("SELECT 1")
    queried("SELECT 1", 1)
    await connection.commit()
    ended("commit")
    await connection.execute("SELECT 1")
    queried("SELECT 1", 1)
    await connection.rollback()
    ended("rollback")
    async with connection.transaction():
        async with connection.transaction():
            pass
        ended("release")
        with contextlib.suppress(KeyError):
            async with connection.transaction():
                raise KeyError
        ended("rollback to")
        # a cursor on the server
        server = connection.cursor("c")
        await server.execute("SELECT generate_series(1, 997)")
        queried("SELECT generate_series(1, 997)")
        fetched("fetchone", len([await server.fetchone()]))
        fetched("fetchmany", len(await server.fetchmany(31)))
        fetched(NEXT, 1, times=len([row async for row in server]))
        fetched(NEXT, 0)
        await server.close()
    ended("commit")
    async with connection.transaction(force_rollback=True):
        pass
    ended("rollback")
    with contextlib.suppress(KeyError):
        async with connection:
            await connection.execute("SELECT 1")
            queried("SELECT 1", 1)
            raise KeyError
    ended("rollback")
"""
ASYNC = 'Connection, NEXT = psycopg.AsyncConnection, "__anext__"\n'
ASYNC += "async def islice(rows, n):\n    for _ in range(n):\n        yield await anext(rows)\nasyncio.run(main())\n"
SYNC = 'Connection, NEXT, islice = psycopg.Connection, "__next__", itertools.islice\nmain()\n'


def without_async(program):
    return program.replace("async ", "").replace("await ", "").replace("aclose", "close")


@pytest.fixture
def postgres_place(postgres):
    place = postgres.environment
    return {"host": place["PGHOST"], "user": place["PGUSER"], "dbname": place["PGDATABASE"]}


def test_psycopg(check, postgres_place):
    check(without_async(PSYCOPG) + SYNC, postgres_place, "postgresql")


def test_asynchronous_psycopg(check, postgres_place):
    check(PSYCOPG + ASYNC, postgres_place, "postgresql")


PSYCOPG2 = r"""
import contextlib, io, psycopg2, psycopg2.extras
from psycopg2 import sql
OPEN = psycopg2.connect(**where)
OPEN.autocommit = True
ready()
connection = psycopg2.connect(**where)
connected(where["dbname"])
error = failing(psycopg2.OperationalError, lambda: psycopg2.connect(**{**where, "dbname": "nothing"}))
connected("nothing", error)
assert type(connection) is psycopg2.extensions.connection
cursor = OPEN.cursor()
cursor.execute("CREATE TEMPORARY TABLE orders (id integer, customer text)")
queried("CREATE TEMPORARY TABLE orders (id integer, customer text)")
insert = "INSERT INTO orders VALUES (%s, %s)"
for number in range(2000):
    cursor.execute(insert, (number, "ada"))
    queried(insert, 1)
cursor.executemany(insert, [(number, "grace") for number in range(7)])
queried(insert, 7)
select = "SELECT id FROM orders"
cursor.execute(select)
queried(select, 2007)
fetched("fetchone", len([cursor.fetchone()]))
fetched("fetchmany", len(cursor.fetchmany(7)))
fetched("__next__", 1, times=len(list(cursor)))
fetched("__next__", 0)
fetched("fetchall", len(cursor.fetchall()))
cursor.execute(sql.SQL("SELECT {} WHERE 'eve' = {}").format(sql.Literal(5), sql.Literal("eve")))
queried("SELECT %s WHERE 'eve' = %s", 1)
error = failing(psycopg2.errors.UndefinedTable, cursor.execute, "SELECT * FROM nothing")
queried("SELECT * FROM nothing", -1, error)
cursor.copy_expert("COPY orders FROM STDIN", io.StringIO("1\tturing\n" * 13))
queried("COPY orders FROM STDIN", 13)
dictionaries = OPEN.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
dictionaries.execute(select)
queried(select, 2020)
assert dictionaries.fetchone()["id"] == 0
fetched("fetchone", 1)
connection.cursor().execute("SELECT 1")
queried("SELECT 1", 1)
connection.commit()
ended("commit")
connection.rollback()  # there is no transaction
with contextlib.suppress(KeyError), connection, connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    queried("SELECT 1", 1)
    raise KeyError
ended("rollback")
with connection, connection.cursor("c") as cursor:
    cursor.execute("SELECT generate_series(1, 997)")
    queried("SELECT generate_series(1, 997)")
    fetched("__next__", 1, times=len(list(cursor)))
    fetched("__next__", 0)
ended("commit")
"""


def test_psycopg2(check, postgres_place):
    check(PSYCOPG2, postgres_place, "postgresql")


ASYNCPG = r"""
import asyncio, asyncpg, contextlib, io
async def main():
    place = {"host": where["host"], "user": where["user"], "database": where["dbname"]}
    pool = await asyncpg.create_pool(**place, min_size=1, max_size=1)
    ready()
    connection = await asyncpg.connect(**place)
    connected(where["dbname"])
    try:
        await asyncpg.connect(**{**place, "database": "nothing"})
    except asyncpg.InvalidCatalogNameError as raised:
        connected("nothing", type(raised).__name__)
    await connection.execute("CREATE TEMPORARY TABLE orders (id integer, customer text)")
    queried("CREATE TEMPORARY TABLE orders (id integer, customer text)")
    insert = "INSERT INTO orders VALUES ($1, $2)"
    for number in range(2000):
        await connection.execute(insert, number, "ada")
        queried(insert, 1)
    await connection.executemany(insert, [(number, "grace") for number in range(7)])
    queried(insert)
    select = "SELECT id FROM orders"
    rows = fetched("fetch", len(await connection.fetch(select)))
    queried(select, rows)
    assert rows == 2007
    fetched("fetchrow", len([await connection.fetchrow(select)]))
    queried(select, 1)
    assert await connection.fetchval("SELECT 997") == 997
    queried("SELECT 997", 1)
    fetched("fetchval", 1)
    assert await connection.fetchrow("SELECT 1 WHERE 1 = $1", 2) is None
    queried("SELECT 1 WHERE 1 = $1", 0)
    fetched("fetchrow", 0)
    try:
        await connection.fetch("SELECT * FROM nothing")
    except asyncpg.UndefinedTableError as raised:
        queried("SELECT * FROM nothing", -1, type(raised).__name__)
        fetched("fetch", 0, type(raised).__name__)
    statement = await connection.prepare("SELECT id FROM orders WHERE id < $1")
    text = "SELECT id FROM orders WHERE id < $1"
    for number in range(31):
        queried(text, fetched("fetch", len(await statement.fetch(number))))
    assert await statement.fetchval(5) == 0
    queried(text, 1)
    fetched("fetchval", 1)
    statement = await connection.prepare(insert)
    await statement.executemany([(1, "eve")] * 3)
    queried(insert)

    # copy
    records = [(number, "turing") for number in range(13)]
    await connection.copy_records_to_table("orders", records=records)
    queried("COPY orders FROM STDIN", 13)
    status = await connection.copy_from_query("SELECT 1", output=io.BytesIO())
    queried("COPY (SELECT 1) TO STDOUT ", 1)
    await connection.copy_to_table("orders", source=io.BytesIO(b"5\tx\n"), columns=["id", "customer"])
    queried('COPY "orders"("id", "customer") FROM STDIN  ', 1)

    # transactions and cursors
    async with connection.transaction():
        queried("BEGIN;")
        got = 0
        async for row in connection.cursor("SELECT generate_series(1, $1::integer)", 997):
            got += 1
        queried("SELECT generate_series(1, $1::integer)")
        fetched("cursor", 50, times=19)
        fetched("cursor", 47)
        assert got == 997
        cursor = await connection.cursor("SELECT generate_series(1, 997)")
        queried("SELECT generate_series(1, 997)")
        fetched("cursor", len(await cursor.fetch(31)))
        assert await cursor.fetchrow()
        fetched("cursor", 1)
        with contextlib.suppress(KeyError):
            inner = connection.transaction()
            async with inner:
                queried(f"SAVEPOINT {inner._id};")
                raise KeyError
        ended("rollback to")
    ended("commit")
    block = connection.transaction()
    await block.start()
    queried("BEGIN;")
    await block.rollback()
    ended("rollback")

    # a pool's connections are of another class, and were there before
    for number in range(31):
        async with pool.acquire() as lent:
            assert await lent.fetchval("SELECT $1::integer", number) == number
            queried("SELECT $1::integer", 1)
            fetched("fetchval", 1)
            reset = lent.get_reset_query()
    await pool.fetch("SELECT 5")
    queried("SELECT 5", 1)
    fetched("fetch", 1)
    queried(reset, times=32)  # by the pool, each time that a connection is given back
asyncio.run(main())
"""


def test_asyncpg(check, postgres_place):
    check(ASYNCPG, postgres_place, "postgresql")


MYSQL = r"""
def work(OPEN, connect, error_of_table, error_of_database, cursor_classes):
    ready()
    connection = connect()
    connected(where["database"])
    error = failing(error_of_database, lambda: connect(database="nothing"))
    connected("nothing", error)
    cursor = OPEN.cursor()
    cursor.execute("CREATE TEMPORARY TABLE test.orders (id integer, customer text)")
    queried("CREATE TEMPORARY TABLE test.orders (id integer, customer text)", 0)
    insert = "INSERT INTO test.orders VALUES (%s, %s)"
    for number in range(2000):
        cursor.execute(insert, (number, "ada"))
        queried(insert, 1)
    cursor.executemany(insert, [(number, "grace") for number in range(7)])
    queried(insert, 7)
    update = "UPDATE test.orders SET customer = %s WHERE id = %s"
    cursor.executemany(update, [("eve", number) for number in range(10, 23)])
    queried(update, 13)
    select = "SELECT id FROM test.orders"
    cursor.execute(select)
    queried(select, cursor.rowcount)
    fetched("fetchone", len([cursor.fetchone()]))
    fetched("fetchmany", len(cursor.fetchmany(7)))
    fetched("fetchall", len(cursor.fetchall()))
    cursor.execute(select)
    queried(select, cursor.rowcount)
    steps = len(list(cursor))
    assert steps == 2007
    fetched(ITERATION, 1, times=steps)
    fetched(ITERATION, 0)
    error = failing(error_of_table, cursor.execute, "SELECT * FROM nothing")
    queried("SELECT * FROM nothing", -1, error)
    for options in cursor_classes:
        other = OPEN.cursor(**options)
        other.execute("SELECT seq FROM seq_1_to_31")
        queried("SELECT seq FROM seq_1_to_31", other.rowcount if other.rowcount < 2**63 else -1)
        fetched("fetchone", len([other.fetchone()]))
        fetched("fetchall", len(other.fetchall()))
        other.close()
    OPEN.commit()
    ended("commit")
    OPEN.rollback()
    ended("rollback")
"""
PYMYSQL = r"""
import pymysql.cursors
OPEN = pymysql.connect(**where)
ITERATION = "__next__"
classes = [{"cursor": getattr(pymysql.cursors, name)} for name in ("DictCursor", "SSCursor", "SSDictCursor")]
connect = lambda **more: pymysql.connect(**{**where, **more})
where["host"] = where["unix_socket"]
work(OPEN, connect, pymysql.err.ProgrammingError, pymysql.err.OperationalError, classes)
"""
CONNECTOR = r"""
import mysql.connector
where["host"] = where["unix_socket"]
place = {name: value for name, value in where.items() if name != "host"}
place |= {"use_pure": PURE, "collation": "utf8mb4_general_ci"}
OPEN = mysql.connector.connect(**place)
ITERATION = "fetchone"
if PURE:  # the driver asks this itself, before it escapes a first text
    queried("SELECT @@session.sql_mode", 1)
    fetched("fetchone", 1)
kinds = (("dictionary",), ("buffered",), ("dictionary", "buffered"), ("prepared",), ("raw",))
classes = [dict.fromkeys(kind, True) for kind in kinds]
connect = lambda **more: mysql.connector.connect(**{**place, **more})
work(OPEN, connect, mysql.connector.errors.ProgrammingError, mysql.connector.errors.ProgrammingError, classes)
"""


@pytest.fixture
def mysql_place(mariadb):
    mariadb.query("CREATE DATABASE IF NOT EXISTS test")
    return {"unix_socket": str(mariadb.socket), "user": "root", "database": "test"}


def test_pymysql(check, mysql_place):
    check(MYSQL + PYMYSQL, mysql_place, "mysql")


@pytest.mark.parametrize("pure", [True, False])
def test_mysql_connector(check, mysql_place, pure):
    check(MYSQL + f"PURE = {pure}" + CONNECTOR, mysql_place, "mysql")
