"""Providers for libraries, and the tools made of them, called from Python: their rows, and what they refuse."""

import socket
import subprocess
import sys

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.providers import node, pam, readline, resolver, threads, tls
from usdtkit.providers.libc import LibraryCalls, by_failure
from usdtkit.tools import gethostlatency, ssllatency, sslsniff
from usdtkit.trace import arg, latency, ms

pytestmark = pytest.mark.machine

LOOK_UPS = """
import socket, sys
for line in sys.stdin:
    for number in range(97):
        socket.getaddrinfo(f"127.0.0.{number}", 80)
    socket.gethostbyaddr("127.0.0.1")
    print("done", flush=True)
"""


@pytest.fixture
def look_up(spawn):
    """A process that looks names up: `pid`, and `look_up()`, which returns when it has done so."""
    process = spawn([sys.executable, "-c", LOOK_UPS])

    def run():
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    run.pid = process.pid
    run()  # now it has mapped all that it will
    return run


def test_conditions_and_tables_of_all_look_ups(look_up):
    with trace.Session(pid=look_up.pid) as session:
        lookups = resolver.lookups(session)
        counts = lookups.where(arg("returned") == 0).count("probe")
        slow = lookups.where(latency > ms(60_000)).count()
        session.start()
        look_up()
        assert counts.read()[("getaddrinfo",)] == 97
        assert counts.read()[("gethostbyaddr_r",)] == 1
        assert slow.read() == {(): 0}


def test_a_tool_is_a_function_of_a_session(look_up):
    with trace.Session(pid=look_up.pid) as session:
        results = gethostlatency.trace(session, gethostlatency.Options(min_ms=0.0001))
        session.start()
        look_up()
        session.stop()
        rows = list(results)
    hosts = [row["host"] for row in rows if row["function"] == "getaddrinfo"]
    assert hosts[:97] == [f"127.0.0.{number}" for number in range(97)]
    assert ("gethostbyaddr_r", "127.0.0.1", "ok") in {(row["function"], row["host"], row["result"]) for row in rows}


def test_transfers_and_handshakes_of_one_session(tls):
    with trace.Session(pid=tls.pid) as session:
        results = sslsniff.trace(session, sslsniff.Options(handshake=True, content=True, max_buffer_size=31))
        session.start()
        subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
        tls.served()
        session.stop()
        rows = list(results)
    assert [row["function"] for row in rows] == ["HANDSHAKE", "READ/RECV", "WRITE/SEND"]
    assert rows[-1]["content"] == tls.answer[:31]
    assert {row["library"] for row in rows} == {"openssl"}


def test_histograms_of_handshakes(tls):
    with trace.Session(pid=tls.pid) as session:
        results = ssllatency.trace(session, ssllatency.Options(histogram=True))
        session.start()
        for _ in range(13):
            subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
            tls.served()
        session.stop()
        (blocks,) = results.every()
    (histogram,) = blocks
    assert (histogram.labels, histogram.distribution.count) == ({"result": "ok"}, 13)


@pytest.mark.parametrize(
    "provider",
    [
        *(resolver.lookups, pam.calls, readline.lines, node.requests, threads.creations, tls.transfers),
        *(tls.handshakes, lambda session: LibraryCalls(session, ["open"])),
    ],
)
def test_an_offline_session_has_a_program(provider):
    with trace.Session(offline=True) as session:
        sources = provider(session)
        if hasattr(sources, "emit"):
            sources.emit()
        assert session.program().text


def test_what_cannot_be_measured(stepper):
    with trace.Session(pid=stepper().pid) as session:
        with pytest.raises(UsageError, match="boringssl"):
            tls.transfers(session, ["boringssl"])
        with pytest.raises(NotFoundError, match="openssl"):
            tls.transfers(session, ["openssl"])
        with pytest.raises(NotFoundError, match="nowhere"):
            tls.handshakes(session, extra=[("openssl", "/nowhere/libssl.so")])
        with pytest.raises(NotFoundError, match="no readline"):
            readline.lines(session)


def test_how_functions_say_that_they_failed():
    functions = ("open", "pthread_create", "getaddrinfo", "malloc", "strlen", "pthread_self")
    assert by_failure(functions) == {
        **{"-1": ["open"], "code": ["pthread_create"], "gai": ["getaddrinfo"], "null": ["malloc"]},
        "": ["strlen", "pthread_self"],
    }


@pytest.mark.parametrize(
    ("data", "family", "text"),
    [
        (bytes([127, 0, 0, 1]), socket.AF_INET, "127.0.0.1"),
        (bytes(15) + b"\1", socket.AF_INET6, "::1"),
        (bytes([socket.AF_INET, 0, 0, 80, 127, 0, 0, 1]), None, "127.0.0.1"),
        (b"\1\2", socket.AF_INET6, "0102"),
        (b"\1\2", 31, "0102"),
    ],
)
def test_addresses(data, family, text):
    assert resolver.address_text(data, family) == text


@pytest.mark.parametrize(
    ("function", "returned", "found", "value", "words"),
    [
        ("getaddrinfo", 2**32 - 2, True, -2, "EAI_NONAME"),
        ("gethostbyname", 0, True, 0, "failed"),
        ("gethostbyname_r", 0, False, 0, "not found"),
        ("gethostbyname_r", 34, False, 34, "ERANGE"),
        ("getnameinfo", 31, True, 31, "error 31"),
    ],
)
def test_what_look_ups_return(function, returned, found, value, words):
    assert resolver.meaning(function, returned, found=found) == (value, words)
