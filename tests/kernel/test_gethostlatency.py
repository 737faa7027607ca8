"""gethostlatency on real programs: what they asked for and got is what it shows, in whichever C library they have."""

import csv
import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commandline import go, json_lines, start_tracing, stop_tracing
from processes import among_own_mounts

POINTER_FUNCTIONS = ("gethostbyname", "gethostbyname2", "gethostbyaddr")
PYENV = sorted(Path.home().glob(".pyenv/versions/3.1*/bin/python3"))


@pytest.fixture
def look_ups(spawn):
    """look_ups(run, *options) -> the events of --json while `run` runs, which returns the pid to look at."""

    def trace(run, *options):
        tracer = start_tracing(spawn, "gethostlatency", "--json", *options)
        pid = run()
        header, events, summary = json_lines(stop_tracing(tracer)[0])
        assert header["schema"] == "usdtkit.gethostlatency/1"
        assert (summary["received"], summary["lost"]) == (len(events), 0)
        return [event for event in events if event["pid"] == pid]

    return trace


def run(*argv):
    """Run a program to its end and return its pid."""
    process = subprocess.Popen([str(part) for part in argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.wait(60)
    return process.pid


def asked(events):
    return {(event["function"], event["host"]) for event in events}


def outermost(events):
    """Without the calls that the C library makes within others: an inner one returns first, and lies in the outer."""
    kept = []
    for event in reversed(events):
        if not kept or event["time_ns"] < kept[-1]["time_ns"] - kept[-1]["latency_ns"]:
            kept.append(event)
    return kept[::-1]


@pytest.fixture
def resolver(spawn, wait_for_line, look_ups):
    """resolver(argv, by_pid=False) -> (calls that resolver.c printed, events of the tool)."""

    def run(argv, by_pid=False):
        process = spawn(argv)
        wait_for_line(process, "ready")
        lines = []

        def resolve():
            go(process)
            lines.extend(process.stdout.read().splitlines())
            return process.pid

        events = look_ups(resolve, *(["-p", process.pid] if by_pid else []))
        return [(name, host, int(result)) for name, host, result in map(str.split, lines)], events

    return run


def shown(event):
    """An event as resolver.c prints its call: the older functions' pointers as 0 for success."""
    pointer = event["function"] in POINTER_FUNCTIONS
    return event["function"], event["host"], int(not event["returned"]) if pointer else event["returned"]


def test_every_function_with_its_host_and_result(compile_c, resolver):
    path = compile_c("resolver.c")
    calls, events = resolver([path])
    assert len(calls) == 9
    assert [shown(event) for event in outermost(events)] == calls
    assert {event["comm"] for event in events} == {path.name[:15]}
    results = {(event["returned"], event["result"]) for event in events if event["function"] not in POINTER_FUNCTIONS}
    assert results == {(0, "ok"), (-2, "EAI_NONAME")}


def test_calls_within_calls_keep_their_own_host_and_latency(compile_c, look_ups):
    binary = compile_c("resolver.c")
    events = look_ups(lambda: run(binary))
    outer = next(event for event in events if event["function"] == "gethostbyname")
    inner = events[events.index(outer) - 1]
    assert (inner["function"], inner["host"]) == ("gethostbyname_r", "localhost")
    assert inner["latency_ns"] < outer["latency_ns"]


def test_a_name_that_the_reentrant_form_does_not_find(compile_c, look_ups):
    source = """
    #define _GNU_SOURCE
    #include <netdb.h>
    int main(void) {
        static char buffer[4096];
        struct hostent entry, *found;
        int error;
        return gethostbyname_r("not..a..name", &entry, buffer, sizeof buffer, &found, &error) || found;
    }"""
    binary = compile_c(source)
    assert subprocess.run([binary]).returncode == 0
    assert {(event["returned"], event["result"]) for event in look_ups(lambda: run(binary))} == {(0, "not found")}


def test_getent(look_ups):
    assert ("getaddrinfo", "localhost") in asked(look_ups(lambda: run("getent", "ahosts", "localhost")))
    assert ("gethostbyname2", "localhost") in asked(look_ups(lambda: run("getent", "hosts", "localhost")))
    assert ("gethostbyaddr", "127.0.0.1") in asked(look_ups(lambda: run("getent", "hosts", "127.0.0.1")))


def test_curl(look_ups, tmp_path):
    (tmp_path / "hosts").write_text("127.0.0.1 shop.test\n")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://shop.test:{closed.getsockname()[1]}/"
    # A hosts file that only curl sees: without a network nothing else knows a name that curl does not know itself.
    alone = among_own_mounts('mount --bind "$0" /etc/hosts; exec curl --silent --noproxy "*" "$1"')
    events = look_ups(lambda: run(*alone, tmp_path / "hosts", url))
    assert asked(events) == {("getaddrinfo", "shop.test")}
    assert {event["tid"] for event in events} != {event["pid"] for event in events}  # in a thread for it


PYTHON_CALLS = """
import socket
socket.getaddrinfo("localhost", 80)
socket.gethostbyname_ex("localhost")
socket.gethostbyaddr("127.0.0.1")
socket.getnameinfo(("127.0.0.1", 80), 0)
"""


@pytest.mark.parametrize("python", ["/usr/bin/python3", *PYENV[-1:]], ids=["debian", *(["pyenv"] if PYENV else [])])
def test_python(python, look_ups):
    events = outermost(look_ups(lambda: run(python, "-c", PYTHON_CALLS)))
    names = [("getaddrinfo", "localhost"), ("gethostbyname_r", "localhost"), ("gethostbyaddr_r", "127.0.0.1")]
    # Python itself looks at the host that it is given by getaddrinfo first.
    assert set(names) | {("getnameinfo", "127.0.0.1")} <= asked(events)
    assert {event["result"] for event in events} == {"ok"}


def test_every_look_up_of_many_threads(look_ups):
    threads, each = 10, 97

    def resolve():
        def work(thread):
            for number in range(each):
                socket.getaddrinfo(f"127.0.{thread}.{number}", 80)

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return threading.main_thread().native_id

    events = look_ups(resolve)
    wanted = {("getaddrinfo", f"127.0.{thread}.{number}") for thread in range(threads) for number in range(each)}
    assert len(events) == threads * each
    assert asked(events) == wanted


def test_a_process_with_a_c_library_of_its_own(compile_c, tmp_path, resolver):
    binary = compile_c("resolver.c")
    listed = subprocess.run(["ldd", binary], text=True, capture_output=True, check=True).stdout
    files = [Path(word) for word in listed.split() if word.startswith("/")]
    for file in [*files, Path("/etc/hosts"), Path("/etc/nsswitch.conf")]:
        (tmp_path / file.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / file.relative_to("/"))
    shutil.copy(binary, tmp_path / "resolver")

    # By its pid its own library is found, also where the tracer has another one of that name.
    calls, events = resolver(["chroot", tmp_path, "/resolver"], by_pid=True)
    assert [shown(event) for event in outermost(events)] == calls
    assert len(calls) == 9


def test_it_ends_with_the_process(compile_c, spawn, wait_for_line):
    process = spawn([compile_c("resolver.c")])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "gethostlatency", "-p", process.pid)
    go(process)
    process.wait(20)
    process.stdout.read()
    assert tracer.wait(20) == 0
    heading, *rows = tracer.stdout.read().splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "FUNCTION", "RESULT", "HOST"]
    assert rows[0].split()[-3:] == ["getaddrinfo", "ok", "localhost"]
    assert tracer.stderr.read() == f"received {len(rows)}, lost 0, from 1 file in 1 process\n"


@pytest.mark.parametrize(("threshold", "seen"), [("0.0001", 1), ("60000", 0)])
def test_only_slow_look_ups(threshold, seen, look_ups):
    call = "import socket; socket.getaddrinfo('127.0.0.1', 80)"
    assert len(look_ups(lambda: run(sys.executable, "-c", call), "-m", threshold)) == seen


@pytest.mark.parametrize("form", ["csv", "chrome"])
def test_another_format_in_a_file(spawn, tmp_path, form):
    written = tmp_path / "look-ups"
    tracer = start_tracing(spawn, "gethostlatency", "--format", form, "--output", written)
    pid = run("getent", "ahosts", "localhost")
    assert stop_tracing(tracer)[0] == ""
    if form == "csv":
        events = list(csv.DictReader(written.open()))
        assert any(event["pid"] == str(pid) and event["host"] == "localhost" for event in events)
    else:
        assert any(event["pid"] == pid and event["name"] == "getaddrinfo" for event in json.loads(written.read_text()))
