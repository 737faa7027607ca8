"""bashreadline on bash, and on programs that use libreadline in either of its ways, at a terminal of their own."""

import csv
import os
import pty

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit

pytestmark = pytest.mark.machine


@pytest.fixture
def at_a_terminal(spawn):
    """at_a_terminal(argv, lines, last) -> its pid, when `last`, which the lines make it print, has been seen."""
    masters = []

    def run(argv, lines, last, **options):
        master, terminal = pty.openpty()
        masters.append(master)
        environment = os.environ | {"TERM": "dumb", "HOME": "/nonexistent"} | options
        process = spawn(argv, stdin=terminal, stdout=terminal, stderr=terminal, text=False, env=environment)
        os.close(terminal)
        os.write(master, "".join(f"{line}\n" for line in lines).encode())
        seen = ""
        while last not in seen:
            seen += os.read(master, 4096).decode()
        return process.pid

    yield run
    for master in masters:
        os.close(master)


def commands(tracer, pid):
    header, events, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.bashreadline/1"
    assert (summary["received"], summary["lost"], summary["unreadable"]) == (len(events), 0, 0)
    return [(event["command"], event["comm"]) for event in events if event["pid"] == pid]


def test_every_command_of_bash(spawn, at_a_terminal):
    tracer = start_tracing(spawn, "bashreadline", "--json")
    lines = [*(f": {number}" for number in range(97)), "", "echo done$((5 + 2))"]
    pid = at_a_terminal(["bash", "--norc", "--noprofile", "-i"], lines, "done7")
    assert commands(tracer, pid) == [(line, "bash") for line in lines]


def test_the_table_and_csv(spawn, at_a_terminal):
    for form in ([], ["--csv"]):
        tracer = start_tracing(spawn, "bashreadline", *form)
        pid = at_a_terminal(["bash", "--norc", "--noprofile", "-i"], ["echo '\u202egnp\u202c' done$((5 + 2))"], "done7")
        output = stop_tracing(tracer)[0]
        if form:
            (row,) = [row for row in csv.DictReader(output.splitlines()) if row["pid"] == str(pid)]
            assert row["command"] == "echo '\\u202egnp\\u202c' done$((5 + 2))"
        else:
            heading, *lines = output.splitlines()
            assert heading.split() == ["TIME", "PID", "COMMAND"]
            (line,) = [line for line in lines if line.split()[1] == str(pid)]
            assert line.split(maxsplit=2)[2] == "echo '\\u202egnp\\u202c' done$((5 + 2))"


# Python's prompt uses the callback interface; psql calls readline().
@pytest.mark.parametrize("program", ["python3", "psql"])
def test_programs_that_use_the_library(program, spawn, at_a_terminal, postgres):
    tracer = start_tracing(spawn, "bashreadline", "-s", "--json")
    if program == "python3":
        lines = ["1 + 1", "print('done', 5 + 2)"]
        pid = at_a_terminal(["/usr/bin/python3", "-q"], lines, "done 7")
    else:
        lines = ["\\set a 7", "\\echo done :a"]
        pid = at_a_terminal([postgres.psql, "--no-psqlrc"], lines, "done 7", **postgres.environment)
    assert commands(tracer, pid) == [(line, program) for line in lines]


def test_one_process_whichever_way_it_has_readline(at_a_terminal):
    pid = at_a_terminal(["/usr/bin/python3", "-q"], ["print('up', 5 + 2)"], "up 7")
    plan = usdtkit("bashreadline", "-p", pid, "--explain").stdout
    assert {line.split()[4] for line in plan.splitlines()[1:]} == {"readline_internal_teardown"}


def test_a_program_without_readline(stepper):
    assert_explained(usdtkit("bashreadline", "-p", stepper().pid), 4, "no readline", "hint")
    assert_explained(usdtkit("bashreadline", "-s", "/nowhere/libreadline.so"), 4, "/nowhere/libreadline.so")
