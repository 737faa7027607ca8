"""A command that a session starts is traced from its first instruction, and ends with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.trace import cstr, retval


def test_functions_from_the_first_instruction():
    with trace.Session(command=["getent", "ahosts", "localhost"]) as session:
        calls = session.pair(trace.uprobe("c", "getaddrinfo"), keep={"host": cstr(1)})
        calls.emit("host", returned=retval.cast("i32"))
        mains = session.uprobe("c", "__libc_start_main").count()
        events = list(session)
        assert mains.read() == {(): 1}
    assert [(event.probe, event.host, event.returned) for event in events] == [("getaddrinfo", "localhost", 0)]


def test_probes_of_its_own_file(compile_c):
    with trace.Session(command=[str(compile_c("mysql_usdt.c")), "997"]) as session:
        queries = session.usdt("mysql:query__start").count("query")
        list(session)
        counted = queries.read()
    assert len(counted) == 997 and set(counted.values()) == {1}


def test_nothing_runs_before_all_is_attached(tmp_path):
    witness = tmp_path / "witness"
    with trace.Session(command=["touch", str(witness)]) as session:
        session.uprobe("c", "exit").count()
        assert not witness.exists()
    assert not witness.exists()


def test_it_ends_with_the_session():
    with trace.Session(command=["sleep", "1000"]) as session:
        session.uprobe("c", "exit").count()
        session.start()
        (pid,) = session.pids
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("words", [["no-such-command-here"], ["/no/such/file"]])
def test_no_such_command(words):
    with pytest.raises(NotFoundError):
        trace.Session(command=words)


def test_a_command_or_processes():
    with pytest.raises(UsageError):
        trace.Session(command=["true"], pid=1)


def test_it_ends_when_the_tracer_is_killed_before_it_began():
    script = """
import time
from usdtkit import trace
session = trace.Session(command=["touch", "/nonexistent/file"])
print(session.pids[0], flush=True)
time.sleep(1000)
"""
    tracer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = os.pidfd_open(int(tracer.stdout.readline()))
    tracer.send_signal(signal.SIGKILL)
    tracer.communicate()
    assert select.select([child], [], [], 20)[0]
    os.close(child)
