"""ssllatency on real clients and servers: each handshake once, however many calls it takes, and how it ended."""

import csv
import subprocess
import sys

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit
from programs.tls import LIBRARIES, extra_library

pytestmark = pytest.mark.machine


def handshakes(tracer):
    header, events, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.ssllatency/1"
    assert (summary["lost"], summary["full"]) == (0, 0)
    return events


# What shakes hands by itself, with the first byte, is seen only where the library shows its state machine.
EXPLICIT = ["curl", "python", "libcurl-gnutls", "libcurl-nss", *(["node"] if extra_library("node") else [])]


@pytest.mark.parametrize("name", EXPLICIT)
def test_one_handshake_of_a_client_and_of_the_server(name, tls, spawn):
    tracer = start_tracing(spawn, "ssllatency", "--json", *extra_library(name))
    client = spawn(tls.client(name), stderr=subprocess.DEVNULL)
    tls.served()
    client.communicate(timeout=30)
    own = [event for event in handshakes(tracer) if event["pid"] in (client.pid, tls.pid)]
    events = {event["pid"]: event for event in own}
    assert (len(own), events.keys()) == (2, {client.pid, tls.pid})
    assert (events[client.pid]["library"], events[client.pid]["result"]) == (LIBRARIES[name], "ok")
    assert (events[tls.pid]["library"], events[tls.pid]["result"]) == ("openssl", "ok")
    assert all(event["latency_ns"] >= event["busy_ns"] > 0 for event in events.values())


# Both sides in one process, each call with what the other has said so far: two calls a side, in TLS 1.3.
IN_STEPS = """
import ssl, sys
certificate, key = sys.argv[1:]
accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
accepting.load_cert_chain(certificate, key)
connecting = ssl._create_unverified_context()
print("ready", flush=True)
input()
for _ in range(97):
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [connecting.wrap_bio(down, up), accepting.wrap_bio(up, down, server_side=True)]
    for side in sides * 2:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
"""


def test_handshakes_that_take_several_calls(certificate, ready, spawn):
    process = ready([sys.executable, "-c", IN_STEPS, *certificate])
    tracer = start_tracing(spawn, "ssllatency", "--json", "-p", str(process.pid))
    go(process)
    assert process.wait(30) == 0
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert [(event["calls"], event["result"]) for event in events] == [(2, "ok")] * 2 * 97
    assert all(event["latency_ns"] > event["busy_ns"] for event in events)
    assert summary["lost"] == 0


PLAIN = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.sendall(b"500 what is this?\\r\\n")
while connection.recv(4096):
    connection.shutdown(socket.SHUT_WR)
"""


@pytest.mark.parametrize(("name", "result"), [("curl", "not finished"), ("libcurl-gnutls", "error -")])
def test_a_handshake_with_somebody_who_speaks_no_tls(name, result, spawn, tls, wait_for_line):
    tracer = start_tracing(spawn, "ssllatency", "--json", "--no-nss")
    listener = spawn([sys.executable, "-c", PLAIN])
    tls.url = f"https://127.0.0.1:{wait_for_line(listener, 'port').split()[1]}/"
    client = spawn(tls.client(name), stderr=subprocess.DEVNULL)
    assert client.wait(30) != 0
    (event,) = [event for event in handshakes(tracer) if event["pid"] == client.pid]
    assert event["result"].startswith(result)


def test_a_histogram(tls, spawn):
    found = []
    for form in ("--json", "--csv", None):
        tracer = start_tracing(spawn, "ssllatency", "-H", "-p", str(tls.pid), *([form] if form else []))
        for _ in range(13):
            subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
            tls.served()
        found.append(stop_tracing(tracer)[0])
    _, (line,), summary = json_lines(found[0])
    assert (line["result"], line["count"], summary["lost"]) == ("ok", 13, 0)
    assert sum(int(row["count"]) for row in csv.DictReader(found[1].splitlines())) == 13
    assert sum(int(line.split(":")[1].split()[0]) for line in found[2].splitlines() if "|" in line) == 13


def test_the_table(tls, spawn):
    tracer = start_tracing(spawn, "ssllatency", "-p", str(tls.pid))
    subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
    tls.served()
    heading, row = stop_tracing(tracer)[0].splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "BUSY(ms)", "CALLS", "LIBRARY", "RESULT"]
    assert row.split()[1] == str(tls.pid)
    assert row.split()[-3:] == ["1", "openssl", "ok"]


def test_only_slow_handshakes_and_a_process_without_any(tls, spawn, stepper):
    tracer = start_tracing(spawn, "ssllatency", "-p", str(tls.pid), "-m", "60000", "--json")
    subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
    tls.served()
    assert handshakes(tracer) == []
    assert_explained(usdtkit("ssllatency", "-p", stepper().pid), 4, "openssl or gnutls or nss")
