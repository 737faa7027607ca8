"""The options that narrow what is traced: threads, users, names of threads, several processes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commandline import USDTKIT, assert_explained, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit

from usdtkit.cli import main

# Two threads, "first" and "second", fire 997 and 97 times; their numbers come before.
SOURCE = """
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <sys/sdt.h>

static pthread_barrier_t told, allowed;

static void *fire(void *name) {
    int times = *(char *)name == 'f' ? 997 : 97;
    pthread_setname_np(pthread_self(), name);
    printf("%s %ld\\n", (char *)name, syscall(SYS_gettid));
    pthread_barrier_wait(&told);
    pthread_barrier_wait(&allowed);
    for (int n = 0; n < times; n++) DTRACE_PROBE1(two, hit, n);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && setuid(atoi(argv[1]))) return 1;
    pthread_t one, two;
    pthread_barrier_init(&told, 0, 3);
    pthread_barrier_init(&allowed, 0, 3);
    pthread_create(&one, 0, fire, "first");
    pthread_create(&two, 0, fire, "second");
    pthread_barrier_wait(&told);
    puts("ready");
    fflush(stdout);
    getchar();
    pthread_barrier_wait(&allowed);
    pthread_join(one, 0);
    pthread_join(two, 0);
    puts("done");
    return 0;
}
"""


@pytest.fixture
def threads(compile_c, spawn, wait_for_line):
    """threads(*arguments) -> a process, with the numbers of its threads by name; `path`."""
    program = compile_c(SOURCE, "-pthread")

    def start(*arguments, path=program):
        if not path.exists():
            shutil.copy(program, path)
        process = spawn([path, *arguments])
        lines = [process.stdout.readline().split() for _ in range(3)]
        assert lines[2] == ["ready"]
        process.path, process.tids = str(path), dict(lines[:2])
        return process

    return start


def counted(spawn, wait_for_line, targets, *options):
    """How often each thread of the targets was seen, by (pid, comm)."""
    tracer = start_tracing(spawn, "trace", "--json", f"u:{targets[0].path}:two:hit", *options)
    for target in targets:
        go(target)
        wait_for_line(target, "done")
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert summary["lost"] == 0
    seen = [(event["pid"], event["comm"]) for event in events]
    return {who: seen.count(who) for who in set(seen)}


def test_a_thread(threads, spawn, wait_for_line):
    target = threads()
    found = counted(spawn, wait_for_line, [target], "--tid", target.tids["first"])
    assert found == {(target.pid, "first"): 997}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--comm", "second"], ["second"]),
        (["--comm", "fir*"], ["first"]),
        (["--comm", "fir"], []),
        (["--comm", "fir*", "--comm", "second"], ["first", "second"]),
        (["--comm", "fir*", "--uid", "root"], ["first"]),
        (["--comm", "fir*", "--uid", "65534"], []),
    ],
)
def test_names_of_threads(options, names, threads, spawn, wait_for_line):
    target = threads()
    times = {"first": 997, "second": 97}
    found = counted(spawn, wait_for_line, [target], "-p", target.pid, *options)
    assert found == {(target.pid, name): times[name] for name in names}


def test_a_user(threads, spawn, wait_for_line):
    ours, theirs = threads(), threads("65534")
    found = counted(spawn, wait_for_line, [ours, theirs], "--uid", "nobody")
    assert found == {(theirs.pid, "first"): 997, (theirs.pid, "second"): 97}


def test_a_cgroup_and_those_below_it(threads, spawn, wait_for_line):
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = Path(next(path for _, path, kind, *_ in mounts if kind == "cgroup2"))
    above = root / f"usdtkit-test-{os.getpid()}"
    below = above / "docker-0123456789abcdef.scope"
    inside, outside = threads(), threads()
    below.mkdir(parents=True)
    try:
        (below / "cgroup.procs").write_text(str(inside.pid))
        for name in (above.name, str(below), "0123456789ab"):
            done = usdtkit("trace", f"u:{inside.path}:two:hit", "--cgroup", name, "--explain")
            assert done.returncode == 0, done.stderr
        found = counted(spawn, wait_for_line, [inside, outside], "--cgroup", above.name)
        assert found == {(inside.pid, "first"): 997, (inside.pid, "second"): 97}
    finally:
        inside.kill()
        inside.wait()
        below.rmdir()
        above.rmdir()


def test_processes_by_name(threads, spawn, wait_for_line, tmp_path):
    named = tmp_path / "two-named-997"
    one, two, numbered = threads(path=named), threads(path=named), threads()
    words = ("trace", "u::two:hit", "--comm", "first", "--json", "-p", f"{named.name},{numbered.pid}")
    assert f"{named.name} means processes {one.pid}, {two.pid}" in usdtkit(*words, "--explain").stderr
    tracer = start_tracing(spawn, *words)
    for target in (one, two, numbered):
        go(target)
        wait_for_line(target, "done")
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert (summary["received"], summary["lost"]) == (3 * 997, 0)
    assert {event["pid"] for event in events} == {one.pid, two.pid, numbered.pid}


@pytest.mark.parametrize("words", [("trace", "c:malloc", "-p"), ("deadlock",), ("uthreads",), ("list", "-p")])
def test_no_process_of_a_name(words, threads, tmp_path):
    threads(path=tmp_path / "two-named-991")
    assert_explained(
        usdtkit(*words, "two-named-919"), 4, "no process runs a program 'two-named-919'; near: two-named-991"
    )


def test_waiting_for_a_process_of_a_name(threads, spawn, wait_for_line, tmp_path):
    named = tmp_path / "two-named-983"
    words = ("trace", "u::two:hit", "--comm", "second", "--json", "-p", named.name, "--wait")
    tracer = spawn([*USDTKIT, *words], stderr=subprocess.PIPE)
    wait_for_line(tracer, "waiting: no process runs a program", "stderr")
    target = threads(path=named)
    wait_for_line(tracer, "Tracing", "stderr")
    go(target)
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert (len(events), summary["received"], summary["lost"]) == (97, 97, 0)


@pytest.mark.parametrize("spelling", ["{},{}", "{} -p {}"])
def test_several_processes(spelling, threads, spawn, wait_for_line):
    one, two, other = threads(), threads(), threads()
    pids = ["-p", *spelling.format(one.pid, two.pid).split()]
    found = counted(spawn, wait_for_line, [one, two, other], "--comm", "second", *pids)
    assert found == {(one.pid, "second"): 97, (two.pid, "second"): 97}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--uid", "no such user"], "there is no user 'no such user'"),
        (["--tid", "0"], "'0' is not a thread ID"),
        (["-p", "1,,2"], "'' is not a process ID"),
        (["--cgroup", "no such cgroup"], "no cgroup or container 'no such cgroup'"),
    ],
)
def test_values_that_are_none(option, said):
    done = usdtkit("trace", "c:open", *option)
    assert (done.returncode, done.stdout) == (4 if "cgroup" in said else 2, "")
    assert said in done.stderr


def test_a_cgroup_that_does_not_exist_starts_no_command(capfd):
    children = Path("/proc/thread-self/children")
    before = children.read_text()
    assert main(["trace", "c:open", "--cgroup", "no such cgroup", "-c", "sleep 1000"]) == 4
    assert children.read_text() == before
    assert "no cgroup or container" in capfd.readouterr().err
