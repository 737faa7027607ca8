"""funcslower: the slow calls of a function that measures itself, and no others."""

import csv
import io
import re

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit


@pytest.fixture
def slow(compile_c, ready, spawn):
    """slow(*options) -> (output, (depth, nanoseconds) of every call); a recursion of depth 7, three times."""
    path = compile_c("recursive.c", "-O1", "-fno-omit-frame-pointer")

    def run(*options, pattern="{}:descend"):
        program = ready([path, 7, 3])
        pattern = pattern.replace("{}", str(path))
        tracer = start_tracing(spawn, "funcslower", pattern, "-p", program.pid, *options)
        go(program)
        own = [tuple(map(int, line.split())) for line in program.stdout.read().splitlines()]
        return end_of_tracing(tracer)[0], own

    return run


def test_all_calls_with_what_they_were_asked_and_returned(slow):
    output, own = slow("-u", "0", "-a", "1", "--json")
    _, events, summary = json_lines(output)
    assert [event["arguments"] for event in events] == [[depth] for depth, _ in own]
    assert [event["retval"] for event in events] == list(range(7)) * 3
    assert all(event["latency_ns"] > ns for event, (_, ns) in zip(events, own, strict=True))
    assert (summary["hits"], summary["lost"], summary["unmatched"]) == (21, 0, 0)


@pytest.mark.parametrize(
    ("kind", "condition", "depths"),
    [("", "(int depth) (depth % 2)", [1, 3, 5, 7]), ("r:", " ((int)retval == 5)", [6])],
)
def test_a_condition(kind, condition, depths, slow):
    output, own = slow("-u", "0", "-a", "2", "--json", pattern=f"{kind}{{}}:descend{condition}")
    _, events, summary = json_lines(output)
    assert [event["arguments"][0] for event in events] == depths * 3
    assert (summary["hits"], summary["lost"], len(own)) == (21, 0, 21)


def test_a_threshold(slow):
    # Depths 4 to 7 work for 100 µs or more together with those below, whatever else the machine does.
    output, own = slow("-u", "100", "--json")
    _, events, summary = json_lines(output)
    assert {event["retval"] for event in events} >= {3, 4, 5, 6}
    assert all(event["latency_ns"] >= 100_000 for event in events)
    assert summary["hits"] == 21 == len(own)


def test_the_table(slow):
    output, _ = slow("-u", "0", "-a", "2", "-T")
    heading, *rows = output.splitlines()
    assert heading.split() == ["TIME", "COMM", "PID", "LAT(us)", "RVAL", "FUNC", "ARGS"]
    assert len(rows) == 21
    assert re.search(r" +\d+\.\d\d +0x0 descend +0x1 0x[0-9a-f]+$", rows[0])
    assert slow("-m", "0", "-t")[0].splitlines()[0].split()[:4] == ["TIME(s)", "COMM", "PID", "LAT(ms)"]


def test_stacks(slow):
    output, _ = slow("-u", "0", "-U", "--json")
    assert json_lines(output)[1][6]["stack"][0]["name"] == "main"
    output, _ = slow("-u", "0", "-U", "-f")
    assert sum(bool(re.search(r";main(;descend){0,6} \d+$", line)) for line in output.splitlines()) == 21
    assert "\n        descend+0x" in slow("-u", "0", "-U")[0]


def test_csv(slow):
    output, own = slow("-u", "0", "-a", "1", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["arguments"] for row in rows] == [f"[{depth}]" for depth, _ in own]


def test_errors():
    assert_explained(usdtkit("funcslower", "c:no_such_function"), 4, "no function no_such_function")
    assert_explained(usdtkit("funcslower", "c:open", "-m", "1", "-u", "1"), 2, "not allowed with")
    assert usdtkit("funcslower", "vfs_read").returncode == 2
