"""However a tracer ends, its target goes on as if it had never been: no breakpoint, no raised semaphore."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import leaks
import pytest
from processes import byte_in_memory

from usdtkit import targets, trace
from usdtkit.kernel.attach.links import METHODS

# Arguments: path of the stepper, method, what to do with the first event.
TRACER = """
import os, signal, sys
from usdtkit import trace
path, method, then = sys.argv[1:]
with trace.Session(method=method) as session:
    session.usdt("step:*", path=path).emit(n=trace.arg(1))
    session.uprobe(path, "work").count()
    session.uretprobe(path, "work").count()
    if then == "stop":
        signal.signal(signal.SIGTERM, lambda *_: session.stop())
    session.start()
    print("attached", flush=True)
    for event in session:
        if event.n == 96:
            print("seen", flush=True)
            if then == "raise":
                raise RuntimeError("in the loop")
            if then == "exit":
                os._exit(7)
print("ended", session.summary().received, flush=True)
"""


@pytest.fixture
def original(compile_c):
    """The bytes at what is traced, as they are in the file: {offset: byte}."""
    path = compile_c("stepper.c", "-O2")
    sites = [site for probe in targets.probes_in(str(path)) for site in probe.sites]
    [function] = targets.find_functions(str(path), ["work"])
    content = path.read_bytes()
    offsets = [*(site.file_offset for site in sites), function.file_offset]
    return {offset: content[offset : offset + 1] for offset in offsets}


def is_untouched(target, original):
    """Whether the code in memory is that of the file, and no semaphore is raised."""
    return {offset: target.first_byte(offset) for offset in original} == original and target.fire(13) == 0


def eventually_untouched(target, original):
    """As above, within the time that the kernel may take to bury a killed process."""
    deadline = time.monotonic() + 20
    while not is_untouched(target, original):
        assert time.monotonic() < deadline
    return True


@pytest.fixture
def tracer(run_python, wait_for_line):
    """tracer(target, method, then) -> the process of TRACER, attached, with the target's breakpoints in place."""

    def start(target, original, method, then=""):
        process = run_python(TRACER, target.path, method, then, stderr=subprocess.PIPE)
        wait_for_line(process, "attached")
        assert {target.first_byte(offset) for offset in original} == {b"\xcc"}
        return process

    return start


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_in_the_loop(tracer, stepper, original, method):
    target = stepper()
    process = tracer(target, original, method, "raise")
    assert target.fire(97) == 97
    assert process.wait(20) == 1
    assert process.stderr.read().endswith("RuntimeError: in the loop\n")
    assert is_untouched(target, original)


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c(tracer, stepper, original, method, wait_for_line):
    target = stepper()
    process = tracer(target, original, method)
    assert target.fire(97) == 97
    wait_for_line(process, "seen")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert eventually_untouched(target, original)  # the kernel frees a perf event after the process has ended


def test_sigterm_that_stops_the_session(tracer, stepper, original, wait_for_line):
    target = stepper()
    process = tracer(target, original, "uprobe_multi", "stop")
    target.fire(97)
    process.send_signal(signal.SIGTERM)
    assert wait_for_line(process, "ended") == f"ended {2 * 97}"
    assert process.wait(20) == 0
    assert is_untouched(target, original)


@pytest.mark.parametrize("method", METHODS)
def test_sigterm_that_nobody_handles(tracer, stepper, original, method):
    target = stepper()
    process = tracer(target, original, method)
    target.fire(97)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    assert eventually_untouched(target, original)


@pytest.mark.parametrize("method", METHODS)
def test_an_end_without_any_clean_up(tracer, stepper, original, method):
    target = stepper()
    process = tracer(target, original, method, "exit")
    target.fire(97)
    assert process.wait(20) == 7
    assert eventually_untouched(target, original)


@pytest.mark.parametrize("seed", range(7))
def test_kill_9_at_any_moment(run_python, stepper, original, seed):
    target = stepper()
    process = run_python(TRACER, target.path, METHODS[seed % len(METHODS)], "", stderr=subprocess.DEVNULL)
    chance = random.Random(seed)
    target.send(9973)
    time.sleep(chance.uniform(0, 0.4))  # no event: any moment of start, attachment and work is meant
    process.kill()
    process.wait(20)
    target.fired()
    assert eventually_untouched(target, original)


def test_a_hundred_sessions_killed_at_random_moments(run_python, stepper, original, wait_for_line):
    target, held, chance = stepper(), set(), random.Random(997)
    for number in range(20):
        group = [run_python(TRACER, target.path, "uprobe_multi", "", stderr=subprocess.DEVNULL) for _ in range(5)]
        target.send(997)
        if number == 0:  # so that some are attached on the slowest machine too
            for process in group:
                wait_for_line(process, "attached")
        else:
            time.sleep(chance.uniform(0, 0.4))  # no event: any moment of start, attachment and work is meant
        for process in group:
            held |= leaks.bpf_objects(process.pid)
            process.kill()
        for process in group:
            process.wait(20)
        target.fired()
    assert {kind for kind, _ in held} >= {"prog_id", "map_id"}
    assert eventually_untouched(target, original)
    deadline = time.monotonic() + 20
    while left := {each for each in held if leaks.exists(*each)}:
        assert time.monotonic() < deadline, left


def test_a_python_service_whose_tracer_was_killed(run_python, spawn, wait_for_line):
    service = spawn([sys.executable, Path(__file__).parents[1] / "programs" / "firing.py", 997], env=dict(os.environ))
    path = wait_for_line(service, "ready").split()[1]
    watcher = """
import sys
from usdtkit import trace
session = trace.Session()
session.usdt("counted:order__start", path=sys.argv[1]).count()
session.start()
print("attached", flush=True)
sys.stdin.read()
"""
    process = run_python(watcher, path)
    wait_for_line(process, "attached")
    [site] = [site for probe in targets.probes_in(path) for site in probe.sites]
    assert byte_in_memory(service.pid, path, site.file_offset) == b"\xcc"
    process.kill()
    process.wait(20)
    deadline = time.monotonic() + 20
    while byte_in_memory(service.pid, path, site.file_offset) != Path(path).read_bytes()[site.file_offset :][:1]:
        assert time.monotonic() < deadline
    service.stdin.write("go\n")
    service.stdin.flush()
    assert wait_for_line(service, "fired") == "fired 997"


def test_close_frees_everything_at_once(stepper, original):
    target = stepper()
    before = leaks.snapshot()
    with trace.Session(pid=target.pid) as session:
        session.usdt("step:*").emit()
        session.start()
        assert any("bpf" in held for held in leaks.new_since(before))
        target.fire(13)
    assert leaks.new_since(before) == []
    assert is_untouched(target, original)


def test_a_target_that_is_killed_while_it_is_traced(stepper):
    """What it had done until then stays counted, the session ends by itself, and nothing of it is left."""
    target = stepper()
    before = leaks.snapshot()
    with trace.Session(pid=target.pid) as session:
        fires = session.usdt("step:plain").count()
        session.start()
        target.fire(997)
        assert fires.read()[()] == 997
        target.send(1_000_000_000)
        deadline = time.monotonic() + 20
        while fires.read()[()] == 997:  # it is in the midst of them
            assert time.monotonic() < deadline
        target.process.kill()
        assert list(session) == []
        assert fires.read()[()] == session.summary().hits > 997
    assert target.process.wait(20) == -signal.SIGKILL
    assert leaks.new_since(before) == []
