"""What a trace would do, told before it does it: every site, its arguments and semaphore, and what a hit costs."""

import json
import os

import pytest
from commandline import assert_described, usdtkit

from usdtkit import trace

PROGRAM = r"""
__asm__(".text\n.globl slow\n.type slow,@function\nslow: sub $8,%rsp\nadd $8,%rsp\nret\n.size slow,.-slow\n"
        ".globl quick\n.type quick,@function\nquick: push %rbp\npop %rbp\nret\n.size quick,.-quick\n");
void slow(void); void quick(void);
int main(void) { slow(); quick(); return 0; }
"""


@pytest.fixture
def program(compile_c):
    return compile_c(PROGRAM)


def test_the_plan_of_probes_and_functions(compile_c, program):
    path = str(compile_c("stepper.c", "-O2"))
    with trace.Session() as session:
        session.usdt("step:*", path=path)
        session.pair(trace.uprobe(str(program), "slow"))
        session.uprobe("c", "gethostbyname2_r")
        plan = {(site.kind, site.name): site for site in session.plan()}
    assert {key: site.cost for key, site in plan.items()} == {
        ("usdt", "step:plain"): "emulated",
        ("usdt", "step:guarded"): "emulated",
        ("entry", "slow"): "stepped",
        ("return", "slow"): "stepped",
        ("entry", "gethostbyname2_r"): plan["entry", "gethostbyname2_r"].cost,
    }
    assert plan["usdt", "step:guarded"].semaphore_offset > 0
    assert plan["usdt", "step:guarded"].path == path
    known = plan["entry", "gethostbyname2_r"].arguments
    assert [(argument.name, argument.type) for argument in known[:2]] == [("name", "str"), ("family", "i32")]


@pytest.mark.parametrize(
    "line",
    [
        *(["trace", "{}"], ["funccount", "{}"], ["stackcount", "{}"], ["stackcount", "{}", "--sum", "arg1"]),
        *(["stackcount", "{}", "--by-latency"], ["funclatency", "{}"], ["funcslower", "{}"], ["funcinterval", "{}"]),
        *(["probelatency", "{}", "{}"], ["argdist", "--stats", "{}():u64,u64:arg1,arg2"]),
    ],
)
def test_a_condition_changes_nothing_of_what_is_attached_to(line, program):
    def plan(pattern):
        command = [word.replace("{}", pattern) for word in line]
        done = usdtkit(*command, "--explain", "--json")
        assert done.returncode == 0, done.stderr
        return sorted((site["kind"], site["name"]) for site in map(json.loads, done.stdout.splitlines()[1:]))

    target = f"p:{program}:quick"
    sites = plan(target)
    assert ("entry", "quick") in sites
    assert line[0] == "argdist" or plan(f"{target} (arg1 > 3)") == plan(f"{target}(long n) (n > 3)") == sites


def test_as_json_and_csv(compile_c):
    line = ["trace", f"u:{compile_c('mysql_usdt.c')}:mysql:query__start", "--explain"]
    header, *rows = map(json.loads, usdtkit(*line, "--json").stdout.splitlines())
    assert_described("header", [header])
    assert_described(header["schema"], rows)
    assert header["schema"] == "usdtkit.explain/1" and len(rows) == 1
    assert {"name": "query", "type": "str"} in rows[0]["arguments"]
    heading, row = usdtkit(*line, "--csv").stdout.splitlines()
    assert heading.split(",")[0] == "kind" and row.startswith("usdt,mysql:query__start,")


def test_single_steps_are_warned_of_before_attaching(program):
    done = usdtkit("trace", f"p:{program}:slow", f"p:{program}:quick", "-c", program)
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    assert lines[0].startswith("usdtkit: 1 of 2 sites are single-stepped") and lines[0].endswith(": slow")
    assert lines[1].startswith("Tracing")
    assert "received 2, lost 0" in lines[-1]


def test_nothing_is_said_where_nothing_is_slow(program):
    done = usdtkit("trace", f"p:{program}:quick", "-c", program)
    assert done.stderr.splitlines()[0].startswith("Tracing")


def test_thousands_of_places_in_every_process_are_warned_of():
    everywhere, here = (usdtkit("funccount", "c:*", "--explain", *where) for where in ((), ("-p", os.getpid())))
    assert everywhere.returncode == here.returncode == 0
    assert "sites are probed in every process" in everywhere.stderr and "-p PID" in everywhere.stderr
    assert "every process" not in here.stderr


def test_nothing_is_attached(program):
    done = usdtkit("trace", f"p:{program}:slow", "--explain", "-c", "sleep 1000")
    assert done.returncode == 0
    kind, _, semaphore, cost, name, *_ = done.stdout.splitlines()[1].split()
    assert (kind, semaphore, cost, name) == ("entry", "-", "stepped", "slow")
    assert "single-stepped" in done.stderr and "Tracing" not in done.stderr
