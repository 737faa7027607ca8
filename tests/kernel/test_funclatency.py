"""funclatency: as many calls as the program made, taking as long as it measured them itself."""

import re

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, usdtkit


@pytest.fixture
def measured(compile_c, ready, spawn):
    """measured(*options) -> (output, the nanoseconds that the program measured); recursion of depth 7, 30 times."""
    path = compile_c("recursive.c")

    def run(*options, pattern="{}:desc*"):
        program = ready([path, 7, 30])
        pattern = pattern.replace("{}", str(path))
        tracer = start_tracing(spawn, "funclatency", pattern, "-p", program.pid, *options)
        go(program)
        own = [int(line.split()[1]) for line in program.stdout.read().splitlines()]
        return end_of_tracing(tracer)[0], own

    return run


def test_every_call_of_a_recursion(measured):
    output, own = measured("--json")
    _, (row,), summary = json_lines(output)
    assert row["count"] == len(own) == summary["hits"] == 210
    assert summary["unmatched"] == summary["abandoned"] == 0
    assert sum(own) < row["sum"] < 1.5 * sum(own) + 210 * 50_000
    assert sum(bucket["count"] for bucket in row["buckets"]) == 210
    assert row["p50"] <= row["p90"] <= row["p99"] <= max(bucket["high"] for bucket in row["buckets"])


@pytest.mark.parametrize(
    ("kind", "condition", "calls"),
    [
        ("", "(int depth) (depth > 3)", 4 * 30),
        ("p:", " (arg1 == 7)", 30),
        ("r:", "(int depth) ((int)retval < 2 || $entry(depth) == 7)", 3 * 30),
        ("r:", "", 210),
    ],
)
def test_a_condition_on_the_entry_or_on_the_return(kind, condition, calls, measured):
    output, own = measured("--json", pattern=f"{kind}{{}}:desc*{condition}")
    _, (row,), summary = json_lines(output)
    assert (row["count"], summary["hits"], len(own)) == (calls, 210, 210)
    assert summary["unmatched"] == summary["abandoned"] == summary["unreadable"] == 0


def test_by_function_in_microseconds(measured):
    output, own = measured("-u", "-F", "--json")
    _, (row,), _ = json_lines(output)
    assert (row["function"], row["value"], row["count"]) == ("descend", "latency_us", 210)
    assert row["sum"] > sum(own) // 1000 - 210
    assert row["pid"] > 1


def test_the_table(measured):
    output, _ = measured("-mT")
    assert re.match(r"\n\d\d:\d\d:\d\d\n\n +latency_ms : count +distribution\n", output)
    assert re.search(r"\ncount 210, average \d+, total \d+, p50 \d+, p90 \d+, p99 \d+\n$", output)
    output, _ = measured()
    assert re.search(r"\ncount 210, average \S+ us, total \S+ ms, p50 \S+ us", output)


def test_csv(measured):
    output, _ = measured("--csv")
    heading, *rows = output.splitlines()
    assert heading == "time,time_ns,value,low,high,count"
    assert sum(int(row.split(",")[-1]) for row in rows) == 210


@pytest.mark.parametrize(
    ("pattern", "code", "said"),
    [
        ("do_sys_open", 2, "kernel functions"),
        ("u:c:libc:setjmp", 2, "usdtkit probelatency measures between probes"),
        ("c:open+4", 2, "this is not a function"),
        ("c:open (length)", 2, "nothing here is called 'length'"),
        ("c:open (arg1", 2, "expected )"),
        ("r:c:open (arg1)", 2, "arg1"),
        ("c:no_such_function", 4, "no function no_such_function"),
    ],
)
def test_errors(pattern, code, said):
    done = usdtkit("funclatency", pattern)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
