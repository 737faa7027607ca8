"""The probes of SQL databases without a tracer, as `usdtkit.testing` records them, in processes of their own."""

import os
import subprocess
import sys

BEGIN = """
import sqlite3
from usdtkit.testing import record_probes
from usdtkit.instrument import dbapi
"""


def run(program, **more):
    ran = subprocess.run(
        [sys.executable, "-c", BEGIN + program], env=os.environ | more, capture_output=True, text=True, check=True
    )
    return ran.stdout


def test_the_order_in_which_they_fire():
    program = """
dbapi.install()
connection = sqlite3.connect(":memory:")
with record_probes() as fired:
    with connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("INSERT INTO orders VALUES (?)", (7,))
    print([row for row in connection.execute("SELECT * FROM orders")])
connection.execute("SELECT 1")
for each in fired:
    print(each.probe, *[value for name, value in each.arguments.items() if name != "latency_ns"])
"""
    assert run(program).splitlines() == [
        "[(7,)]",
        "dbapi:query__start sqlite CREATE TABLE orders (id)",
        "dbapi:query__done sqlite CREATE TABLE orders (id) -1 ",
        "dbapi:query__start sqlite INSERT INTO orders VALUES (?)",
        "dbapi:query__done sqlite INSERT INTO orders VALUES (?) 1 ",
        "dbapi:transaction sqlite commit ",
        "dbapi:query__start sqlite SELECT * FROM orders",
        "dbapi:query__done sqlite SELECT * FROM orders -1 ",
        "dbapi:rows__fetched sqlite __next__ 1 ",
        "dbapi:rows__fetched sqlite __next__ 0 ",
    ]


SHOWN = """
dbapi.install()
connection = sqlite3.connect(":memory:")
with record_probes() as fired:
    connection.execute("SELECT ?", ("secret",))
print(fired[0].arguments["query"])
"""


def test_parameters_are_shown_on_request():
    assert run(SHOWN) == "SELECT ?\n"
    assert run(SHOWN, USDTKIT_UNREDACTED="1") == "SELECT ? ('secret',)\n"


def test_a_cursor_class_for_a_driver_that_is_not_known():
    program = """
Cursor = dbapi.cursor_class(sqlite3.Cursor, "mine")
cursor = sqlite3.connect(":memory:").cursor(Cursor)
with record_probes() as fired:
    assert cursor.execute("SELECT 1") is cursor and isinstance(cursor, sqlite3.Cursor)
    try:
        cursor.executemany("SELECT * FROM orders WHERE id = ?", [(1,)])
    except sqlite3.OperationalError as error:
        print(error)
cursor.execute("SELECT 2")
print([(each.probe, each.arguments["query"], each.arguments.get("error")) for each in fired])
"""
    text = "SELECT * FROM orders WHERE id = ?"
    said = [("dbapi:query__start", "SELECT 1", None), ("dbapi:query__done", "SELECT 1", "")]
    said += [("dbapi:query__start", text, None), ("dbapi:query__done", text, "OperationalError")]
    assert run(program).splitlines() == ["no such table: orders", str(said)]
