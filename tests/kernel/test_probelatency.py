"""probelatency: times between any two probes, by thread and by key, of jobs that overlap."""

import csv
import io

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit


@pytest.fixture
def between(compile_c, ready, spawn):
    """between(start, end, *options) -> the output; 996 jobs, two of which always overlap. {} is the program's path."""
    path = compile_c("work.c", "-O1")

    def run(*arguments):
        program = ready([path])
        arguments = [argument.replace("{}", str(path)) for argument in arguments]
        tracer = start_tracing(spawn, "probelatency", *arguments, "-p", program.pid)
        go(program)
        return end_of_tracing(tracer)[0]

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("u:{}:jobs:start", "u:{}:jobs:done", "--key", "arg1"),
        ("p:{}:begin(void *job)", "p:{}:finish(int code, void *job)", "--key", "job"),
        ("{}:begin(long *job)", "u:{}:jobs:done", "--key", "*job", "--end-key", "arg1"),
        ("r:{}:begin", "u:{}:jobs:done", "--key", "retval", "--end-key", "arg1"),
        ("u:{}:jobs:start", "u:{}:jobs:done"),  # by thread: the innermost first
        ("{}:begin", "r:{}:finish"),
    ],
)
def test_pairs(arguments, between):
    _, (row,), summary = json_lines(between(*arguments, "--json"))
    assert (row["value"], row["count"]) == ("latency_ns", 996)
    assert (summary["unmatched"], summary["abandoned"], summary["lost"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        (("u:{}:jobs:start (arg1 < 97)", "u:{}:jobs:done", "--key", "arg1"), 97),
        (("u:{}:jobs:start", "u:{}:jobs:done (arg2 == 1)", "--key", "arg1"), 498),
        (("u:{}:jobs:start (arg1 % 3 == 0)", "u:{}:jobs:done (arg2 == 0)", "--key", "arg1"), 166),
        (("p:{}:begin(long *id) (*id < 31)", "r:{}:finish ((int)retval % 4 == 0)"), 16),
    ],
)
def test_conditions_of_the_start_and_of_the_end(arguments, pairs, between):
    """They choose among the pairs, and leave a start and its end together."""
    _, (row,), summary = json_lines(between(*arguments, "--json"))
    assert (row["count"], summary["hits"]) == (pairs, 996)
    assert (summary["unmatched"], summary["abandoned"], summary["lost"]) == (0, 0, 0)


def test_one_by_one(between):
    arguments = ("u:{}:jobs:start", "u:{}:jobs:done", "-k", "arg1", "-m", "0")
    _, events, _ = json_lines(between(*arguments, "--json"))
    assert len(events) == 996
    assert {event["probe"] for event in events} == {"jobs:done"}
    assert all(event["latency_ns"] > 0 for event in events)
    assert len(list(csv.DictReader(io.StringIO(between(*arguments, "--csv"))))) == 996
    heading, *rows = between(*arguments).splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "END"]
    assert len(rows) == 996


def test_the_table(between):
    output = between("u:{}:jobs:start", "u:{}:jobs:done", "-u")
    assert "latency_us : count" in output
    assert "count 996, average " in output


def test_errors(compile_c):
    path = compile_c("work.c", "-O1")
    assert_explained(usdtkit("probelatency", "u:c:no:start", f"{path}:work"), 4, "no probe no:start")
    assert "this names 2 different probes" in usdtkit("probelatency", f"u:{path}:jobs:*", f"{path}:work").stderr
    done = usdtkit("probelatency", f"{path}:begin", f"{path}:finish", "--key", "job")
    assert (done.returncode, done.stderr.splitlines()[1:3]) == (2, ["  job", "  ^"])
