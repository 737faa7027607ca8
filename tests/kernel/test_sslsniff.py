"""sslsniff on real clients and servers of OpenSSL, GnuTLS and NSS: every byte counted, and none shown unasked."""

import csv
import subprocess

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit
from programs.tls import LIBRARIES, SERVE, extra_library

pytestmark = pytest.mark.machine


def transferred(events, pid):
    """(bytes written, bytes read) by a process."""
    return tuple(
        sum(event["length"] for event in events if event["pid"] == pid and event["function"] == function)
        for function in ("WRITE/SEND", "READ/RECV")
    )


@pytest.mark.parametrize(("name", "library"), LIBRARIES.items())
def test_every_byte_of_a_client_and_of_the_server(name, library, tls, spawn):
    tracer = start_tracing(spawn, "sslsniff", "--json", *extra_library(name))
    client = spawn(tls.client(name), stderr=subprocess.DEVNULL)
    requested = tls.served()
    got = client.communicate(timeout=30)[0]
    header, events, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.sslsniff/1"
    assert (summary["received"], summary["lost"], summary["unreadable"]) == (len(events), 0, 0)
    assert got.endswith(tls.answer[-997:])
    (pid,) = {event["pid"] for event in events} - {tls.pid}
    assert transferred(events, pid) == (requested, len(tls.answer))
    assert transferred(events, tls.pid) == (len(tls.answer), requested)
    assert {event["library"] for event in events if event["pid"] == pid} == {library}
    assert not any("content" in event for event in events)


@pytest.mark.parametrize("form", ["--content", "--hexdump"])
def test_content_when_it_is_asked_for(form, tls, spawn):
    outputs = []
    for more in ([], ["--csv"], ["--json"]):
        tracer = start_tracing(
            spawn, "sslsniff", form, "-p", str(tls.pid), "-x", "-l", "--max-buffer-size", "97", *more
        )
        subprocess.run(["curl", "--silent", "--insecure", tls.url], check=True, stdout=subprocess.DEVNULL)
        tls.served()
        outputs.append(stop_tracing(tracer)[0])
    table, comma, events = outputs[0], [*csv.DictReader(outputs[1].splitlines())], json_lines(outputs[2])[1]
    assert table.splitlines()[0].split() == ["FUNC", "TIME", "COMM", "PID", "LEN", "UID", "TID", "LAT(ms)"]
    written = next(event for event in events if event["function"] == "WRITE/SEND")
    assert (written["length"], written["content_truncated"]) == (len(tls.answer), True)
    start = tls.answer[:97]
    if form == "--hexdump":
        assert bytes.fromhex(written["content"]).decode() == start
        assert "  0000  48 54 54 50 2f 31 2e 31 20 32 30 30 20 4f 4b 0d  HTTP/1.1 200 OK.\n" in table
    else:
        assert written["content"] == start
        assert "\n  HTTP/1.1 200 OK\n  Content-Length: 997\n" in table
        assert "…" in table
    assert comma[-1]["content"] == written["content"].replace("\r", "\\x0d").replace("\n", "\\x0a") + "…"


def test_nothing_of_what_is_said_is_shown_unasked(tls, spawn):
    tracer = start_tracing(spawn, "sslsniff", "-p", str(tls.pid))
    subprocess.run(["curl", "--silent", "--insecure", tls.url], check=True, stdout=subprocess.DEVNULL)
    tls.served()
    output, messages = stop_tracing(tracer)
    heading, *lines = output.splitlines()
    assert heading.split() == ["FUNC", "TIME", "COMM", "PID", "LEN"]
    assert lines[-1].split()[0] == "WRITE/SEND"
    assert lines[-1].split()[3:] == [str(tls.pid), str(len(tls.answer))]
    assert "marmalade" not in output + messages
    assert "HTTP" not in output + messages


def test_handshakes_and_names(tls, spawn):
    tracer = start_tracing(spawn, "sslsniff", "--json", "-l", "--handshake", "--comm", "curl", "-u", "0", "-g", "-n")
    subprocess.run(["curl", "--silent", "--insecure", tls.url], check=True, stdout=subprocess.DEVNULL)
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    assert [event["function"] for event in events][:2] == ["HANDSHAKE", "WRITE/SEND"]
    assert {(event["comm"], event["uid"], event["library"]) for event in events} == {("curl", 0, "openssl")}
    assert events[0]["latency_ns"] > 100_000


def test_a_process_without_tls(stepper):
    done = usdtkit("sslsniff", "-p", stepper().pid)
    assert_explained(done, 4, "openssl or gnutls or nss", "--extra-lib")
    assert_explained(usdtkit("sslsniff", "--extra-lib", "/usr/bin/node"), 2, "KIND:PATH")


def test_the_lines_of_python_that_send_and_receive(tls, spawn):
    """The calls are within the module ssl, of which each is a function of Python too."""
    tracer = start_tracing(spawn, "sslsniff", "--json", "--handshake", "--pycaller", "-p", str(tls.pid))
    subprocess.run(["curl", "--silent", "--insecure", tls.url], check=True, stdout=subprocess.DEVNULL)
    tls.served()
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    lines = ["", *SERVE.splitlines()]
    found = {event["function"]: event["pycaller"] for event in events}
    calls = {"HANDSHAKE": "wrap_socket(", "READ/RECV": "client.recv(", "WRITE/SEND": "client.sendall("}
    for function, text in calls.items():
        assert text in lines[found[function]["line"]]
        assert (found[function]["function"], found[function]["file"]) == ("<module>", "<string>")
