"""funcinterval: one interval fewer than hits, as long as the program waits between them."""

import json
import subprocess
import sys

import pytest
from commandline import assert_explained, end_of_tracing, start_tracing, usdtkit

# Fires 98 times, 5 ms or a little more apart.
SOURCE = """
import time
from usdtkit import Provider
clock = Provider("clock")
tick = clock.probe("tick", number="u64")
clock.load()
print("ready", flush=True)
input()
for number in range(98):
    tick(number)
    time.sleep(0.005)
"""


@pytest.mark.parametrize(("options", "unit"), [([], 1), (["-u"], 1000), (["-m"], 1_000_000)])
def test_the_intervals_of_a_clock(options, unit, run_python, wait_for_line, spawn):
    program = run_python(SOURCE)
    wait_for_line(program, "ready")
    arguments = ("funcinterval", "clock:tick", "-p", program.pid, "--json", *options)
    tracer = start_tracing(spawn, *arguments)
    program.stdin.write("go\n")
    program.stdin.flush()
    _, row, summary = map(json.loads, end_of_tracing(tracer)[0].splitlines())
    assert row["count"] == 97
    assert row["sum"] * unit + 97 * unit > 97 * 5_000_000
    assert min(bucket["low"] for bucket in row["buckets"]) * unit >= 4_000_000
    assert (summary["summary"]["lost"], summary["summary"]["unmatched"]) == (0, 1)


def test_the_intervals_between_hits_that_meet_a_condition(run_python, wait_for_line, spawn):
    program = run_python(SOURCE)
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "funcinterval", "clock:tick (number % 7 == 3)", "-p", program.pid, "--json")
    program.stdin.write("go\n")
    program.stdin.flush()
    _, row, _ = map(json.loads, end_of_tracing(tracer)[0].splitlines())
    assert row["count"] == 98 // 7 - 1
    assert row["sum"] >= 13 * 7 * 5_000_000
    assert min(bucket["low"] for bucket in row["buckets"]) >= 30_000_000


def test_the_table(spawn):
    sleeper = [sys.executable, "-c", "import time; [time.sleep(0.002) for _ in range(98)]"]
    done = usdtkit("funcinterval", "c:clock_nanosleep", "-c", subprocess.list2cmdline(sleeper))
    assert done.returncode == 0, done.stderr
    assert "interval : count" in done.stdout
    assert "count 97, average 2" in done.stdout


def test_errors():
    assert "no probe no_such:probe" in usdtkit("funcinterval", "no_such:probe").stderr
    assert_explained(usdtkit("funcinterval", "p:c:no_such_function"), 4, "no function no_such_function")
    assert usdtkit("funcinterval", "vfs_read").returncode == 2
    assert "only a target and a condition are expected here" in usdtkit("funcinterval", 'c:open "%d", arg1').stderr
