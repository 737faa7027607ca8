"""A command that a session starts is traced from its first instruction, and ends with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import json_lines, usdtkit

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
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


ENDINGS = {
    "exit 3": ("the command exited with status 3", 3),
    "kill -SEGV $$": ("the command was ended by SIGSEGV", -signal.SIGSEGV),
    "kill -40 $$": ("the command was ended by signal 40", -40),
}


@pytest.mark.parametrize("script", ENDINGS)
def test_how_it_ended_is_told(script):
    words, status = ENDINGS[script]
    done = usdtkit("funccount", "c:__libc_start_main", "-c", f"sh -c '{script}'")
    assert done.returncode == 0  # of the tracing
    assert f"usdtkit: {words}\n" in done.stderr
    _, _, summary = json_lines(usdtkit("funccount", "c:__libc_start_main", "-c", f"sh -c '{script}'", "--json").stdout)
    assert summary["command_status"] == status
    with trace.Session(command=["sh", "-c", script]) as session:
        session.uprobe("c", "__libc_start_main").count()
        assert list(session) == []
        assert session.command_status == status
    assert session.summary().command_status == session.command_status == status


def test_nothing_is_told_of_one_that_went_well_or_was_ended_by_us():
    assert "command" not in usdtkit("funccount", "c:__libc_start_main", "-c", "true").stderr
    assert "command" not in usdtkit("funccount", "c:__libc_start_main", "-c", "sleep 60", "-d", "0.1").stderr
    with trace.Session(command=["sleep", "60"], duration=0.1) as session:
        session.uprobe("c", "__libc_start_main").count()
        list(session)
        assert session.command_status is None
    assert session.command_status is session.summary().command_status is None


@pytest.mark.parametrize("options", [["--json"], ["--csv"]])
def test_its_output_stays_out_of_ours(options):
    arguments = ("funccount", "c:__libc_start_main", "-c", "echo 997 of 997")
    done = usdtkit(*arguments, *options)
    assert "997 of 997\n" in done.stderr
    assert "997 of 997" not in done.stdout
    assert len(done.stdout.splitlines()) == (3 if options == ["--json"] else 2)
    assert "997 of 997\n" in usdtkit(*arguments).stdout


def test_folded_stacks_have_nothing_between_them():
    done = usdtkit("stackcount", "c:write", "-f", "-c", "echo 997 of 997")
    assert "997 of 997\n" in done.stderr
    lines = done.stdout.splitlines()
    assert lines and all(line.rpartition(" ")[2].isdecimal() for line in lines)
    assert "997 of 997" not in done.stdout


def test_what_the_kernel_does_not_run(tmp_path):
    script = tmp_path / "script"
    script.write_text("echo no interpreter is named\n")
    script.chmod(0o755)
    done = usdtkit("funccount", "c:__libc_start_main", "-c", str(script))
    assert done.returncode == 1
    assert f"the command '{script}' cannot be started: Exec format error" in done.stderr
    with trace.Session(command=[str(script)]) as session:
        session.uprobe("c", "exit").count()
        with pytest.raises(UsdtkitError, match="cannot be started"):
            session.start()
    assert session.command_status is None
