"""SQLAlchemy by each of its drivers, Core and ORM, and Django: the drivers' probes say what these have counted."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from processes import let_end, let_work
from pythons import environment

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]

# What is counted is what SQLAlchemy's own events tell. Its first connection, and what it asks there, come before.
BEGIN = r"""
import asyncio, collections, json, sys, time
from sqlalchemy import Column, Integer, String, create_engine, event, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base
Base = declarative_base()
class Order(Base):
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)
    customer = Column(String(40))
queries, commits = collections.Counter(), 0
def executed(connection, cursor, statement, *rest):
    queries[statement] += 1
def committed(connection):
    global commits
    commits += 1
def ready(engine):
    from usdtkit.instrument import watcher
    print("ready", flush=True)
    sys.stdin.readline()
    probes = ["dbapi:query__done", "dbapi:transaction"]
    while not watcher.traced(probes) >= set(probes):
        time.sleep(0.001)
    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "commit", committed)
def core(connection):
    for number in range(700):
        connection.execute(insert(Order), {"customer": "ada"})
    connection.execute(insert(Order), [{"customer": "grace"}] * 7)
    connection.execute(update(Order).where(Order.customer == "grace").values(customer="eve"))
    assert connection.execute(select(func.count()).select_from(Order)).scalar() == 707
def orm(session):
    for number in range(300):
        session.add(Order(customer="turing"))
        session.flush()
    session.commit()
    for number in range(999):
        assert session.scalars(select(Order).where(Order.id == number % 5 + 1)).one()
def end():
    print("done", json.dumps([list(queries.items()), commits]), flush=True)
    sys.stdin.readline()
"""
SYNC = r"""
engine = create_engine(sys.argv[1])
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
ready(engine)
with engine.begin() as connection:
    core(connection)
with Session(engine) as session:
    orm(session)
end()
"""
ASYNC = r"""
async def main():
    engine = create_async_engine(sys.argv[1])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    ready(engine.sync_engine)
    async with engine.begin() as connection:
        await connection.run_sync(core)
    async with AsyncSession(engine) as session:
        await session.run_sync(orm)
    end()
    await engine.dispose()
asyncio.run(main())
"""


@pytest.fixture
def places(postgres, mariadb, tmp_path):
    mariadb.query("CREATE DATABASE IF NOT EXISTS test")
    place = postgres.environment
    postgresql = f"postgres@/{place['PGDATABASE']}?host={place['PGHOST']}"
    return {
        "sqlite": f"sqlite:///{tmp_path / 'orders.db'}",
        "psycopg": f"postgresql+psycopg://{postgresql}",
        "psycopg2": f"postgresql+psycopg2://{postgresql}",
        "pymysql": f"mysql+pymysql://root@/test?unix_socket={mariadb.socket}",
        "asyncpg": f"postgresql+asyncpg://{postgresql}",
        "aiosqlite": f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}",
    }


def run(spawn, wait_for_line, program, *arguments, **more):
    """(line of the program, queries, commits) as they were traced."""
    command = [sys.executable, "-m", "usdtkit.run", "--with", "dbapi", "-c", program, *arguments]
    process = spawn(command, env=environment(str(ROOT), **more), cwd="/", stderr=subprocess.PIPE)
    wait_for_line(process, "ready", timeout=60)
    with trace.Session(pid=process.pid, string_size=200) as session:
        session.usdt("dbapi:query__done").emit("query", "error")
        session.usdt("dbapi:transaction").emit("action", "error")
        session.start()
        said = let_work(process)
        events = list(session.drain())
        assert session.summary().lost == 0
    let_end(process)
    assert {event.error for event in events} == {""}
    queries = Counter(event.query for event in events if event.probe == "dbapi:query__done")
    return json.loads(said), queries, sum(getattr(event, "action", "") == "commit" for event in events)


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "psycopg2", "pymysql", "asyncpg", "aiosqlite"])
def test_sqlalchemy(driver, places, spawn, wait_for_line):
    program = BEGIN + (ASYNC if driver in ("asyncpg", "aiosqlite") else SYNC)
    (expected, commits), queries, committed = run(spawn, wait_for_line, program, places[driver])
    # asyncpg sends BEGIN as a query.
    queries = Counter({query: count for query, count in queries.items() if not query.startswith("BEGIN")})
    assert sum(queries.values()) > 2000
    assert queries == Counter({text[:200]: count for text, count in expected})
    assert committed == commits


DJANGO = r"""
import collections, json, sys, time
import django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])}, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()
from django.db import connection, models, transaction
class Order(models.Model):
    customer = models.CharField(max_length=40)
    class Meta:
        app_label = "shop"
        db_table = "orders_of_django"
with connection.schema_editor() as editor:
    editor.create_model(Order)
queries = collections.Counter()
def executed(execute, sql, parameters, many, context):
    queries[sql] += 1
    return execute(sql, parameters, many, context)
commits, commit = 0, connection._commit
def committing():
    global commits
    commits += 1
    commit()
connection._commit = committing
from usdtkit.instrument import watcher
print("ready", flush=True)
sys.stdin.readline()
probes = ["dbapi:query__done", "dbapi:transaction"]
while not watcher.traced(probes) >= set(probes):
    time.sleep(0.001)
with connection.execute_wrapper(executed):
    with transaction.atomic():
        for number in range(997):
            Order.objects.create(customer="ada")
    for number in range(997):
        assert Order.objects.get(id=number + 1).customer == "ada"
    Order.objects.bulk_create(Order(customer="grace") for _ in range(31))
    assert sum(1 for _ in Order.objects.filter(customer="grace").iterator()) == 31
    Order.objects.filter(id__lt=7).update(customer="eve")
print("done", json.dumps([list(queries.items()), commits]), flush=True)
sys.stdin.readline()
connection.close()
"""


@pytest.mark.parametrize("engine", ["sqlite3", "postgresql"])
def test_django(engine, postgres, tmp_path, spawn, wait_for_line):
    place = postgres.environment
    server = {"HOST": place["PGHOST"], "USER": place["PGUSER"], "NAME": place["PGDATABASE"]}
    settings = {"NAME": str(tmp_path / "orders.db")} if engine == "sqlite3" else server
    database = json.dumps({"ENGINE": f"django.db.backends.{engine}", **settings})
    (expected, commits), queries, committed = run(spawn, wait_for_line, DJANGO, database)
    expected = Counter({(text.replace("%s", "?") if engine == "sqlite3" else text)[:199]: n for text, n in expected})
    queries = Counter({text[:199]: count for text, count in queries.items()})
    assert sum(queries.values()) > 1990
    assert queries == expected
    assert committed == commits > 0
