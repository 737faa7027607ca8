"""What integrations record of the libraries that they wrap, in a process of its own."""

import os
import subprocess
import sys

import pytest


def engagements(program: str) -> list[str]:
    """Run the program, and return the engagements that it ends with, one a line."""
    program += (
        "\nfrom usdtkit.instrument.engagement import engagements"
        "\nfor each in engagements(): print(each.integration, each.library, ','.join(each.wrapped), each.reason)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_a_library_that_is_imported_later():
    lines = engagements("import usdtkit.instrument.dbapi as dbapi; dbapi.install(); import sqlite3")
    assert any(line.startswith("dbapi sqlite3 Cursor.execute,") for line in lines)
    assert "dbapi psycopg  not imported yet" in lines


@pytest.mark.parametrize(
    ("wrap", "reason"),
    [
        ("lambda module: []", "none of the functions that usdtkit knows is in it"),
        ("lambda module: [][0]", "IndexError: list index out of range"),
    ],
)
@pytest.mark.parametrize("imported", ["before", "after"])
def test_a_library_of_which_nothing_is_wrapped(wrap, reason, imported):
    install = f"from usdtkit.instrument.imports import when_imported; when_imported('mine', 'colorsys', {wrap})"
    program = {"before": f"import colorsys\n{install}", "after": f"{install}\nimport colorsys"}[imported]
    assert engagements(program) == [f"mine colorsys  {reason}"]


@pytest.mark.parametrize(("verbose", "says"), [("", False), ("0", False), ("1", True)])
def test_what_standard_error_says(verbose, says):
    """Without the variable, only of a library that is there and has nothing to wrap."""
    program = (
        "from usdtkit.instrument.imports import when_imported\n"
        "when_imported('mine', 'colorsys', lambda module: ['rgb_to_hsv']); import colorsys\n"
        "when_imported('mine', 'this_is_not_there', lambda module: [])\n"
        "when_imported('mine', 'sys', lambda module: [])\n"
        "from usdtkit.instrument.engagement import say_waiting; say_waiting()"
    )
    environment = os.environ | {"USDTKIT_VERBOSE": verbose}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    nothing = "usdtkit: mine: nothing of sys has probes: none of the functions that usdtkit knows is in it"
    said = [
        "usdtkit: mine: colorsys: rgb_to_hsv",
        nothing,
    ]
    waiting = ["usdtkit: mine: waits for the program to import this_is_not_there"] if says else []
    assert ran.stderr.splitlines() == [*(said if says else ()), nothing, *waiting]


def test_functions_that_are_wrapped_one_after_the_other():
    program = (
        "from usdtkit.instrument.engagement import engaged\n"
        "engaged('dbapi', 'db', ['Cursor.execute']); engaged('dbapi', 'db', ['Cursor.execute', 'Connection.commit'])"
    )
    assert engagements(program) == ["dbapi db Cursor.execute,Connection.commit "]
