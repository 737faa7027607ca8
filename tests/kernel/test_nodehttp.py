"""nodehttp on real Node servers, plain and TLS: every request with its method, status and latency."""

import csv
import http.client
import io
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit

pytestmark = pytest.mark.machine

PROGRAM = Path(__file__).parents[1] / "programs" / "serve.js"
STATUSES = (200, 201, 204, 301, 404, 500, 503)
METHODS = ("GET", "POST", "DELETE", "PATCH", "OPTIONS")


@pytest.fixture
def serve(spawn, wait_for_line):
    """serve(*arguments) -> (a server, its port)."""

    def start(*arguments):
        process = spawn(["node", PROGRAM, *arguments])
        return process, int(wait_for_line(process, "ready").split()[1])

    return start


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    key, certificate = (tmp_path_factory.mktemp("tls") / name for name in ("key", "certificate"))
    ask = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*ask, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


def ask(connection, method, url):
    started = time.monotonic_ns()
    connection.request(method, url)
    response = connection.getresponse()
    response.read()
    return method, response.status, url, time.monotonic_ns() - started


def traced(output):
    header, events, summary = json_lines(output)
    assert header["schema"] == "usdtkit.nodehttp/1"
    assert summary["lost"] == 0
    return events


def test_every_request(serve, spawn):
    server, port = serve()
    tracer = start_tracing(spawn, "nodehttp", "--json", "-p", str(server.pid))
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(5)]
    asked = [ask(connections[n % 5], METHODS[n % 3], f"/{STATUSES[n % 7]}/{n}") for n in range(997)]
    for connection in connections:
        connection.close()
    events = traced(stop_tracing(tracer)[0])
    assert [(event["method"], event["status"], event["url"]) for event in events] == [one[:3] for one in asked]
    assert all(0 < event["latency_ns"] < one[3] for event, one in zip(events, asked, strict=True))
    assert {event["pid"] for event in events} == {server.pid}


def test_a_server_that_starts_later(serve, spawn, wait_for_line, tmp_path):
    """Of the same program, and of a copy of it, as a container has one."""
    first, _ = serve()
    shared = "/libnode." in Path(f"/proc/{first.pid}/maps").read_text()  # then the copy runs the same code
    copy = shutil.copy(Path(f"/proc/{first.pid}/exe").resolve(), tmp_path / "node")
    tracer = start_tracing(spawn, "nodehttp", "--json")
    expected = []
    for program in ("node", copy):
        server = spawn([program, PROGRAM])
        port = int(wait_for_line(server, "ready").split()[1])
        if program == copy and not shared:
            wait_for_line(tracer, f"found {copy}", stream="stderr")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for n in range(31):
            expected.append((server.pid, *ask(connection, "GET", f"/200/{n}")[:3]))
        connection.close()
    events = traced(stop_tracing(tracer)[0])
    assert {(event["pid"], event["method"], event["status"], event["url"]) for event in events} >= set(expected)


def test_tls(serve, spawn, certificate):
    server, port = serve(*certificate)
    tracer = start_tracing(spawn, "nodehttp", "--json")  # finds it by itself
    trusting = ssl.create_default_context(cafile=certificate[1])
    connection = http.client.HTTPSConnection("localhost", port, context=trusting)
    asked = [ask(connection, METHODS[n % 5], f"/{STATUSES[n % 7]}/{n}") for n in range(97)]
    connection.close()
    events = [event for event in traced(stop_tracing(tracer)[0]) if event["pid"] == server.pid]
    assert [(event["method"], event["status"], event["url"]) for event in events] == [one[:3] for one in asked]


def test_requests_in_a_pipeline_in_pieces_and_without_an_answer(serve, spawn):
    server, port = serve()
    tracer = start_tracing(spawn, "nodehttp", "--json", "-p", str(server.pid))

    def head(url):
        return f"GET {url} HTTP/1.1\r\nHost: here\r\n\r\n".encode()

    def talk(*pieces, answers):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)  # so that it is a piece: there is no event of its arrival
            got = b""
            while got.count(b"done\n") < answers and (more := connection.recv(4096)):
                got += more

    talk(head("/201/a") + head("/202/b") + head("/203/c"), answers=3)
    talk(b"GET /404/in-", b"three-", b"pieces HTTP/1.1\r\nHost: here\r\n\r\n", answers=1)
    for _ in range(3):
        talk(head("/never"), answers=0)
    talk(head("/early/d"), head("/200/" + "x" * 600), answers=2)
    output, messages = stop_tracing(tracer)
    events = traced(output)
    shown = [(event["status"], event["url"]) for event in events]
    assert shown == [
        *((201, "/201/a"), (202, "/202/b"), (203, "/203/c"), (404, "/404/in-three-pieces"), (200, "/early/d")),
        (200, "/200/" + "x" * 507),
    ]
    assert [event.get("url_truncated", False) for event in events] == [False] * 5 + [True]
    assert "3 requests or answers without their counterpart" in messages


def test_table_csv_and_what_is_hidden(serve, spawn):
    server, port = serve()
    outputs = {}
    for name, options in {"table": (), "csv": ("--csv",), "raw": ("--csv", "--raw-text")}.items():
        tracer = start_tracing(spawn, "nodehttp", "-p", str(server.pid), *options)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        ask(connection, "GET", "/404/door?key=secret")
        ask(connection, "POST", "/200/door")
        connection.close()
        outputs[name], messages = stop_tracing(tracer)
        assert "lost 0" in messages
    heading, *lines = outputs["table"].splitlines()
    assert heading.split() == ["TIME", "PID", "LAT(ms)", "STATUS", "METHOD", "URL"]
    assert [line.split()[3:] for line in lines] == [["404", "GET", "/404/door?…"], ["200", "POST", "/200/door"]]
    rows, raw = (list(csv.DictReader(io.StringIO(outputs[name]))) for name in ("csv", "raw"))
    assert [row["url"] for row in rows] == ["/404/door?…", "/200/door"]
    assert [row["url"] for row in raw] == ["/404/door?key=secret", "/200/door"]
    assert Counter(row["status"] for row in rows) == {"404": 1, "200": 1}


def test_a_program_without_the_functions(compile_c, ready):
    process = ready([compile_c("threads.c", "-pthread"), "1"])
    assert_explained(usdtkit("nodehttp", "-p", process.pid), 4, "hint")
