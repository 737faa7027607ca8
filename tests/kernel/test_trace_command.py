"""`usdtkit trace`: every form of SPEC, every way to end, and what it leaves behind: nothing."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, stop_tracing

from usdtkit import Provider

pytestmark = pytest.mark.machine

OBEDIENT = Path(__file__).parents[1] / "programs" / "obedient.py"


@pytest.fixture
def service(spawn, wait_for_line):
    """tell(command, answer) -> the line of the service that answers; `tell.pid`."""
    process = spawn([sys.executable, OBEDIENT])
    wait_for_line(process, "ready")

    def tell(command, answer):
        process.stdin.write(f"{command}\n")
        process.stdin.flush()
        return wait_for_line(process, answer, timeout=60)

    tell.pid = process.pid
    return tell


def arguments(events, probe="lab:hit"):
    return [event["arguments"] for event in events if event["probe"] == probe]


def hits(number):
    return [{"number": n, "text": f"text {n}"} for n in range(number)]


def test_a_name_alone_finds_the_running_service(shop, spawn):
    tracer = start_tracing(spawn, "trace", "shop:order__start")
    answered = shop.send(97)
    output, messages = stop_tracing(tracer)
    heading, *rows = output.splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "PROBE", "ARGUMENTS"]
    assert len(rows) == sum(answered.values()) == shop.stats()["order__start"] == 97
    assert all(row.split()[1] == str(shop.pid) for row in rows)
    assert {int(row.partition(" order_id=")[2].split()[0]) for row in rows} == set(range(1, 98))
    assert all(' customer="' in row for row in rows)
    assert messages.endswith("received 97, lost 0, from 1 file in 1 process\n")


def test_a_name_alone_finds_the_service_that_starts_later(spawn, wait_for_line):
    provider = Provider("lab")
    provider.probe("hit", number="u64", text="str")
    provider.probe("other", done="bool")
    path = provider.build()  # the same declarations, and so the same file, as those of the service
    tracer = start_tracing(spawn, "trace", "--json", "lab:hit")
    process = spawn([sys.executable, OBEDIENT])
    process.stdin.write("fire 997\n")
    process.stdin.flush()
    wait_for_line(process, "fired 997", timeout=60)
    assert str(path) in Path(f"/proc/{process.pid}/maps").read_text()
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert arguments(events) == hits(997)
    assert (summary["hits"], summary["received"], summary["lost"]) == (997, 997, 0)


def test_json_of_one_process(service, spawn):
    tracer = start_tracing(spawn, "trace", "--json", "-p", service.pid, "lab:hit")
    service("fire 997", "fired")
    header, events, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.trace/2"
    assert arguments(events) == hits(997)
    assert {event["pid"] for event in events} == {service.pid}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert (summary["hits"], summary["received"], summary["lost"]) == (997, 997, 0)


def test_csv(service, spawn):
    tracer = start_tracing(spawn, "trace", "--csv", "-p", service.pid, "lab:hit")
    service("fire 7", "fired")
    rows = list(csv.DictReader(io.StringIO(stop_tracing(tracer)[0])))
    assert [json.loads(row["arguments"]) for row in rows] == hits(7)
    assert {row["probe"] for row in rows} == {"lab:hit"}


@pytest.mark.parametrize("glob", ["lab:*", "l?b:[ho]*"])
def test_globs_show_each_probe_with_its_own_arguments(glob, service, spawn):
    tracer = start_tracing(spawn, "trace", "--json", "-p", service.pid, glob)
    service("fire 7", "fired")
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    assert arguments(events) == hits(7)
    assert arguments(events, "lab:other") == [{"done": True}]


def test_a_probe_in_a_file(compile_c, spawn, wait_for_line):
    program = spawn([compile_c("mysql_usdt.c"), 997])
    wait_for_line(program, "ready")
    spec = f"u:{compile_c('mysql_usdt.c')}:mysql:query__start"
    tracer = start_tracing(spawn, "trace", "--json", spec)
    go(program)
    assert wait_for_line(program, "queries") == "queries 997 traced 997"  # the semaphore, without a pid
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    rest = {"connection_id": 7, "database": "shop", "user": "ada", "host": "localhost"}
    assert arguments(events, "mysql:query__start") == [{"query": f"select {n} from stock", **rest} for n in range(997)]


def test_the_entry_and_the_return_of_a_function(compile_c, spawn, wait_for_line):
    binary = compile_c("recursive.c")
    program = spawn([binary, 7, 3])
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "trace", "--json", f"p:{binary}:descend", f"r:{binary}:desc*")
    go(program)
    calls = program.stdout.read().splitlines()
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert len(calls) == 21
    returned = [event["arguments"]["retval"] for event in events if event["arguments"]]
    assert returned == list(range(7)) * 3
    assert [event["arguments"] for event in events].count({}) == 21
    assert summary["hits"] == 42


def test_a_function_of_a_library_with_names_that_we_know(spawn, wait_for_line):
    source = "import socket; print('ready', flush=True); input(); socket.getaddrinfo('localhost', '80')"
    program = spawn([sys.executable, "-c", source])
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "trace", "-p", program.pid, "p:c:getaddrinfo", "r:c:getaddrinfo")
    go(program)
    output, _ = end_of_tracing(tracer)  # with the process
    first, second = output.splitlines()[1:]
    assert first.endswith('getaddrinfo              node="localhost" service="80"')
    assert second.endswith("getaddrinfo              retval=0")


def test_a_string_that_is_longer(service, spawn):
    tracer = start_tracing(spawn, "trace", "-p", service.pid, "-Z", "4", "lab:hit")
    service("say 1234", "said")
    service("say 12345", "said")
    output, _ = stop_tracing(tracer)
    assert [line.partition("text=")[2] for line in output.splitlines()[1:]] == ['"1234"', '"1234…"']


@pytest.mark.parametrize("form", ["table", "--csv", "--json"])
def test_nothing_that_a_program_says_steers_the_terminal(form, service, spawn):
    options = [] if form == "table" else [form]
    tracer = start_tracing(spawn, "trace", "-p", service.pid, *options, "lab:hit")
    service(r"say \x1b[2J\r\n\x07\x9b\u202egnp.exe\u2066\u200b\x7f", "said")
    output, _ = stop_tracing(tracer)
    assert len(output.splitlines()) == (3 if form == "--json" else 2)
    assert all(character.isprintable() for character in output.replace("\n", ""))


def test_it_ends_after_the_duration(service, spawn):
    tracer = start_tracing(spawn, "trace", "--json", "-d", "0.2", "-p", service.pid, "lab:hit")
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert events == []
    assert summary["duration_s"] >= 0.2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_detaches_all(number, service, spawn):
    tracer = start_tracing(spawn, "trace", "-p", service.pid, "lab:hit")
    assert service("enabled", "enabled") == "enabled True"
    service("fire 997", "fired")
    output, messages = stop_tracing(tracer, number)
    assert len(output.splitlines()) == 998
    assert messages == "received 997, lost 0, from 1 file in 1 process\n"
    assert service("enabled", "enabled") == "enabled False"


def test_a_signal_while_the_results_are_written_costs_none_of_them(service, spawn):
    tracer = start_tracing(spawn, "trace", "--json", "-A", "-M", "997", "-p", service.pid, "lab:hit")
    service("fire 997 400", "fired")
    begin = tracer.stdout.read(8192)  # the trace has ended by itself, and the pipe does not hold all that it writes
    tracer.send_signal(signal.SIGINT)
    output, messages = end_of_tracing(tracer)
    _, events, summary = json_lines(begin + output)
    assert (len(events), summary["received"], messages) == (997, 997, "")


def test_nohup_lets_it_go_on(service, spawn):
    tracer = start_tracing(spawn, "trace", "-p", service.pid, "lab:hit", prefix=["nohup"])
    tracer.send_signal(signal.SIGHUP)
    service("fire 997", "fired")
    output, messages = stop_tracing(tracer)
    assert len(output.splitlines()) == 998
    assert messages == "received 997, lost 0, from 1 file in 1 process\n"


def test_a_reader_that_has_seen_enough(service, spawn, wait_for_line):
    tracer = start_tracing(spawn, "trace", "-p", service.pid, "lab:hit")
    wait_for_line(tracer, "TIME")
    tracer.stdout.close()
    service("fire 7", "fired")
    assert tracer.wait(20) == 0
    assert tracer.stderr.read() == ""
    assert service("enabled", "enabled") == "enabled False"


def test_head_in_a_shell(service, spawn, wait_for_line):
    command = f'"$0" -m usdtkit trace -p {service.pid} lab:hit | head -n 1'
    shell = spawn(["bash", "-c", f"set -o pipefail; {command}", sys.executable], stderr=subprocess.PIPE)
    wait_for_line(shell, "Tracing", stream="stderr")
    service("fire 7", "fired")
    assert shell.wait(20) == 0
    assert shell.stdout.read().split()[0] == "TIME"
    assert shell.stderr.read() == ""


@pytest.mark.parametrize(("allowed", "code"), [("0", 6), ("19997", 0)])
def test_what_is_lost_is_counted_and_too_much_is_an_error(allowed, code, service, spawn):
    tracer = start_tracing(spawn, "trace", "--json", "-p", service.pid, "-Z", "4096", "--max-lost", allowed, "lab:hit")
    os.kill(tracer.pid, signal.SIGSTOP)  # it reads nothing while 19,997 large events look for room
    service("fire 19997 4000", "fired")
    os.kill(tracer.pid, signal.SIGINT)
    os.kill(tracer.pid, signal.SIGCONT)
    _, events, summary = json_lines(end_of_tracing(tracer, code)[0])
    assert summary["received"] == len(events)
    assert summary["lost"] > 0
    assert summary["received"] + summary["lost"] == summary["hits"] == 19997


def test_a_tracer_that_is_killed_leaves_nothing(service, spawn):
    tracer = start_tracing(spawn, "trace", "-p", service.pid, "lab:hit")
    service("fire 997", "fired")
    assert service("enabled", "enabled") == "enabled True"
    tracer.kill()
    tracer.wait(20)
    # The kernel takes the probe off when the last descriptor goes, which is part of the process's end.
    assert service("enabled", "enabled") == "enabled False"
    service("fire 997", "fired")

    second = start_tracing(spawn, "trace", "--json", "-p", service.pid, "lab:hit")
    service("fire 997", "fired")
    _, events, _ = json_lines(stop_tracing(second)[0])
    assert arguments(events) == hits(997)


def test_a_semaphore_of_a_killed_tracer_goes_down(compile_c, spawn, wait_for_line):
    binary = compile_c("stepper.c", "-O2")
    program = spawn([binary])
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "trace", f"u:{binary}:step:guarded")
    program.stdin.write("7\n")
    program.stdin.flush()
    assert wait_for_line(program, "fired").split()[3] == "7"
    tracer.kill()
    tracer.wait(20)
    program.stdin.write("7\n")
    program.stdin.flush()
    assert wait_for_line(program, "fired").split()[3] == "0"


def test_a_null_pointer_is_null_and_no_failure(spawn):
    spec = 'p:c:getaddrinfo "%s|%s", arg1, arg2'
    tracer = start_tracing(spawn, "trace", "p:c:getaddrinfo", spec, "-c", "getent ahosts localhost")
    output, messages = end_of_tracing(tracer)
    assert 'node="localhost" service=null\n' in output
    assert "localhost|null\n" in output
    assert "unreadable" not in messages
    tracer = start_tracing(spawn, "trace", "--json", "p:c:getaddrinfo", "-c", "getent ahosts localhost")
    _, (event,), summary = json_lines(end_of_tracing(tracer)[0])
    assert (event["arguments"]["node"], event["arguments"]["service"]) == ("localhost", None)
    assert (summary["received"], summary["unreadable"]) == (1, 0)
