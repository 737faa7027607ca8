"""What the ready-made probes leave out, everywhere alike, and the switch that shows it."""

import os
import sqlite3
import subprocess
import sys
from http.client import HTTPConnection

import pytest

from usdtkit.instrument import asgi, dbapi, redaction, wsgi
from usdtkit.instrument.http import stdlib
from usdtkit.testing import record_probes


@pytest.fixture(params=[False, True], ids=["redacted", "unredacted"])
def shown(request, monkeypatch):
    monkeypatch.setenv(redaction.VARIABLE, "")
    redaction.show_all(request.param)
    yield request.param
    redaction.show_all(False)


@pytest.mark.parametrize(
    ("target", "redacted", "unredacted"),
    [
        ("/orders", "/orders", "/orders"),
        ("/orders?customer=7#x", "/orders", "/orders?customer=7#x"),
        (b"/\xff?a", "/\ufffd", "/\ufffd?a"),
        ("http://shop:8080/a?b", "http://shop:8080/a", "http://shop:8080/a?b"),
        ("http://ada:pass@shop/a", "http://shop/a", "http://shop/a"),
        ("redis://:p@ss@[::1]:6379/0", "redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("//ada@shop", "//shop", "//shop"),
        ("/at//ada@shop?//b@c", "/at//ada@shop", "/at//ada@shop?//b@c"),
        ("?q", "", "?q"),
    ],
)
def test_urls(target, redacted, unredacted, shown):
    assert redaction.url(target) == (unredacted if shown else redacted)


def test_paths_and_statements(shown):
    assert redaction.path("/what?", b"a=1") == ("/what??a=1" if shown else "/what?")
    assert redaction.path("/what", "") == "/what"
    assert redaction.statement(b"SELECT ?", (7,)) == ("SELECT ? (7,)" if shown else "SELECT ?")
    assert redaction.statement("SELECT 1") == "SELECT 1"
    assert len(redaction.statement("INSERT", [("x" * 1000,)] * 1_000_000)) < 5000


def test_messages(shown):
    message = "GET https://ada:secret@shop/a?b=c and redis://:x@cache, mail ada@shop"
    assert redaction.message(message) == "GET https://shop/a?b=c and redis://cache, mail ada@shop"


def test_what_the_integrations_publish(shown):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/orders", "QUERY_STRING": "customer=7"}

    async def send(message):
        pass

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})

    with record_probes() as fired:
        wsgi.wrap(lambda environ, start: start("204 No Content", []) or [])(environ, lambda *a: None).close()
        scope = {"type": "http", "method": "GET", "path": "/orders", "query_string": b"customer=7"}
        with pytest.raises(StopIteration):
            asgi.wrap(application)(scope, None, send).send(None)
        stdlib._beginning(HTTPConnection.putrequest)(HTTPConnection("shop"), "GET", "/orders?customer=7")
        cursor = dbapi.cursor_class(sqlite3.Cursor, "sqlite")(sqlite3.connect(":memory:"))
        cursor.execute("SELECT ?", ("secret",))
    path = "/orders?customer=7" if shown else "/orders"
    assert [arguments["path"] for arguments in fired.of("*:request__*")] == [path] * 5
    queries = [arguments["query"] for arguments in fired.of("dbapi:query__*")]
    assert queries == ["SELECT ? ('secret',)" if shown else "SELECT ?"] * 2


@pytest.mark.parametrize("value", [None, "", "0", "1"])
def test_the_variable(value):
    environment = {name: text for name, text in os.environ.items() if name != redaction.VARIABLE}
    if value is not None:
        environment[redaction.VARIABLE] = value
    script = "from usdtkit.instrument.redaction import url; print(url('/a?b'))"
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == ("/a?b\n" if value == "1" else "/a\n")


def test_the_option():
    script = "from usdtkit.instrument.redaction import url; print(url('/a?b'))"
    command = [sys.executable, "-m", "usdtkit.run", "--unredacted", "-c", script]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout == "/a?b\n"
