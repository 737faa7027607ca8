"""The tools for languages on the runtimes themselves: what the program did is what they show."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commandline import assert_explained, go, json_lines, start_tracing, stop_tracing, usdtkit
from processes import read_until

from usdtkit import trace
from usdtkit.cli import command
from usdtkit.cli.bundle import programs_of
from usdtkit.tools import ugc

pytestmark = pytest.mark.machine

PROGRAMS = Path(__file__).parents[1] / "programs" / "languages"
JAVA = ["java", "-XX:+UseSerialGC", "-Xshare:auto"]
ORDERS = {
    "java": ([*JAVA, "-XX:+DTraceMethodProbes", "-XX:+DTraceAllocProbes", PROGRAMS / "Work.java"], "Work."),
    "ruby": (["ruby", PROGRAMS / "work.rb"], "Order."),
    "php": (["php", PROGRAMS / "work.php"], "Order."),
    "python": ([sys.executable, "-m", "usdtkit", "run", PROGRAMS / "work.py"], f"{PROGRAMS / 'work.py'}."),
}


@pytest.fixture
def working(spawn, wait_for_line):
    """working(argv) -> a process of tests/programs/languages that waits for a line and will say done."""

    def start(argv, **environment):
        process = spawn(argv, env=os.environ | {"USE_ZEND_DTRACE": "1"} | environment)
        wait_for_line(process, "ready", timeout=60)
        return process

    return start


@pytest.fixture
def traced(spawn, working, wait_for_line):
    """traced(argv, tool, *options) -> the output of a tool while the program does its work."""

    def trace(argv, tool, *options):
        process = working(argv)
        tracer = start_tracing(spawn, tool, str(process.pid), *map(str, options))
        go(process)
        wait_for_line(process, "done", timeout=60)
        return stop_tracing(tracer)[0]

    return trace


@pytest.fixture(params=["perl", "tcl"])
def scripted(request, compile_c, tmp_path):
    """(language, program): a fixture with the name of an interpreter, whose Debian build has no probes."""
    source = (PROGRAMS / "scripted.c").read_text()
    program = tmp_path / {"perl": "perl5.36", "tcl": "tclsh8.6"}[request.param]
    shutil.copy(compile_c(source, "-O1", *(["-DTCL"] if request.param == "tcl" else [])), program)
    return request.param, program


def methods(rows):
    return {row["method"]: row["calls"] for row in rows}


@pytest.mark.parametrize("language", ORDERS)
def test_programs_that_are_known_by_heart_are_those_that_are_loaded(working, language):
    """What a wheel carries, on a machine that had none of the languages."""
    pid = working(ORDERS[language][0]).pid
    tools = {name: command(name)[0] for name in ("ucalls", "uflow", "ugc", "uobjnew", "uthreads")}
    for name in [name for name, tool in tools.items() if language in tool.LANGUAGES]:
        if (name, language) != ("uobjnew", "python"):  # which takes a CPython 3.13
            [(_, real)] = programs_of(f"{name} -p {pid}")
            assert real in {text for _, text in programs_of(name)}, name
    [(_, real)], [(_, known)] = programs_of(f"ustat -p {pid}"), programs_of("ustat")
    assert real == known


@pytest.mark.parametrize("language", ORDERS)
def test_calls(traced, language):
    argv, prefix = ORDERS[language]
    header, rows, summary = json_lines(traced(argv, "ucalls", "--json", "-C", prefix[:-1]))
    assert header["schema"] == "usdtkit.ucalls/2"
    found = methods(rows)
    assert (found[f"{prefix}branch"], found[f"{prefix}leaf"]) == (997, 997)
    assert all(method.startswith(prefix[:-1]) for method in found)
    assert (summary["lost"], summary["full"]) == (0, 0)


@pytest.mark.parametrize("language", ORDERS)
def test_latencies_of_calls_hold_those_within(traced, language):
    argv, prefix = ORDERS[language]
    _, rows, _ = json_lines(traced(argv, "ucalls", "-L", "--json", "-C", prefix[:-1]))
    times = {row["method"]: (row["calls"], row["time_total_ns"]) for row in rows}
    assert times[f"{prefix}branch"][0] == times[f"{prefix}leaf"][0] == 997
    assert times[f"{prefix}branch"][1] > times[f"{prefix}leaf"][1] > 0


def test_calls_in_every_form(traced):
    argv, _ = ORDERS["php"]
    table = traced(argv, "phpcalls")
    assert [line.split() for line in table.splitlines() if "Order." in line or "plain" in line] == [
        ["plain", "97"],
        ["Order.branch", "997"],
        ["Order.leaf", "997"],
    ]
    rows = list(csv.DictReader(io.StringIO(traced(argv, "phpcalls", "--csv", "-T", "2"))))
    assert {row["method"]: row["calls"] for row in rows} == {"Order.branch": "997", "Order.leaf": "997"}


def test_histograms_of_calls(traced):
    _, rows, _ = json_lines(traced(ORDERS["php"][0], "ucalls", "--histogram", "--json", "-M", "*a*", "-C", "Order"))
    counted = {row["method"]: sum(bucket["count"] for bucket in row["buckets"]) for row in rows}
    assert counted == {"Order.branch": 997, "Order.leaf": 997}


def test_calls_of_interpreters_that_debian_builds_without_probes(traced, scripted):
    language, program = scripted
    _, rows, _ = json_lines(traced([program], "ucalls", "-L", "--json"))
    prefix = "Order." if language == "perl" else ""
    assert methods(rows) == {f"{prefix}branch": 997, f"{prefix}leaf": 997}


def test_flow(traced):
    _, rows, summary = json_lines(traced(ORDERS["php"][0], "phpflow", "--json", "-C", "Order"))
    assert summary["lost"] == 0
    flow = [row["flow"] for row in rows]
    assert flow == ["-> Order.branch", "  -> Order.leaf", "  <- Order.leaf", "<- Order.branch"] * 997
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_flow_as_a_table(traced):
    lines = traced(ORDERS["ruby"][0], "uflow", "-M", "leaf", "-C", "Order").splitlines()
    assert lines[0].split() == ["CPU", "PID", "TID", "TIME(s)", "METHOD"]
    assert Counter(line.split(maxsplit=4)[4] for line in lines[1:]) == {"-> Order.leaf": 997, "<- Order.leaf": 997}


def test_flow_as_folded_stacks(traced):
    stacks = [line.rpartition(" ") for line in traced(ORDERS["php"][0], "uflow", "-f").splitlines()]
    assert [stack for stack, _, _ in stacks] == ["Order.branch", "Order.branch;Order.leaf", "plain"]
    assert all(int(time) > 0 for _, _, time in stacks)


def test_flow_as_a_chrome_trace(traced, tmp_path):
    assert traced(ORDERS["php"][0], "uflow", "--chrome", tmp_path / "flow.json") == ""
    events = json.loads((tmp_path / "flow.json").read_text())
    assert Counter((event["ph"], event["name"]) for event in events) == {
        (kind, name): number
        for kind in "BE"
        for name, number in (("Order.branch", 997), ("Order.leaf", 997), ("plain", 97))
    }
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)


def test_collections_of_python(traced):
    header, rows, _ = json_lines(traced(["/usr/bin/python3", PROGRAMS / "work.py"], "ugc", "--json"))
    assert header["schema"] == "usdtkit.ugc/1"
    assert [row["description"].split()[:2] for row in rows] == [["collection", "generation=2"]] * 13
    assert all(row["latency_ns"] > 0 for row in rows)


def test_a_tool_that_python_calls(working):
    process = working(["/usr/bin/python3", PROGRAMS / "work.py"])
    with trace.Session(pid=process.pid) as session:
        rows = iter(ugc.trace(session, ugc.Options(filter="generation=2")))
        session.start()
        go(process)
        collections = [next(rows) for _ in range(13)]
    assert {row["kind"] for row in collections} == {"collection"}
    assert all(row["latency_ns"] > 0 and row["start"] == {"generation": 2} for row in collections)


def test_threads_and_exceptions_of_python(traced):
    argv, prefix = ORDERS["python"]
    _, rows, _ = json_lines(traced(argv, "pythonthreads", "--json"))
    started = [row["name"] for row in rows if row["kind"] == "thread start"]
    assert started == [f"worker-{number}" for number in range(31)]
    flow = json_lines(traced(argv, "pythonflow", "--json", "-M", "leaf"))[1]
    assert [row["flow"] for row in flow] == [f"-> {prefix}leaf", f"<- {prefix}leaf"] * 997


def test_collections_of_java(traced):
    _, rows, _ = json_lines(traced([*JAVA, PROGRAMS / "Work.java"], "javagc", "--json"))
    whole = [row for row in rows if row["kind"] == "collection"]
    assert [row["description"] for row in whole] == ["collection full=true"] * 13
    eden = [row for row in rows if "Eden" in row["description"]]
    assert len(eden) == 13
    # Each pool has its own numbers: what Eden held is gone, what is old stays.
    assert all(row["description"].endswith("->0") for row in eden)
    pools = {row["description"].partition(" used=")[0] for row in rows if row["kind"] == "pool"}
    assert len(pools) > 2
    assert len({row["description"].partition(" used=")[2] for row in rows if row["kind"] == "pool"}) > 2


def test_collections_of_ruby(traced):
    _, rows, _ = json_lines(traced(ORDERS["ruby"][0], "ugc", "--json"))
    assert Counter(row["kind"] for row in rows)["mark"] == 13


def test_only_long_collections_and_those_of_a_text(traced):
    argv = [*JAVA, PROGRAMS / "Work.java"]
    assert len(json_lines(traced(argv, "ugc", "--json", "-F", "Tenured"))[1]) == 13
    assert json_lines(traced(argv, "ugc", "--json", "-M", "60000"))[1] == []


@pytest.mark.parametrize(("language", "made", "count"), [("java", "Work$Order", 97), ("ruby", "Order", 98)])
def test_objects(traced, language, made, count):
    header, rows, _ = json_lines(traced(ORDERS[language][0], "uobjnew", "--json"))
    assert header["schema"] == "usdtkit.uobjnew/1"
    assert {row["type"]: row["allocations"] for row in rows}[made] == count


def test_blocks_of_a_c_program(compile_c, spawn, wait_for_line):
    source = """
#include "program.h"
int main(void)
{
    await_go();
    for (int n = 0; n < 997; n++)
        free(malloc(4321));
    puts("done");
    fflush(stdout);
    await_go();
}
"""
    process = spawn([compile_c(source, "-O0")])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "cobjnew", str(process.pid), "--json")
    go(process)
    wait_for_line(process, "done")
    _, rows, _ = json_lines(stop_tracing(tracer)[0])
    assert [(row["allocations"], row["bytes"]) for row in rows if row["type"] == "block of 4321 bytes"] == [
        (997, 997 * 4321)
    ]


def test_threads_of_java(traced):
    header, rows, _ = json_lines(traced([*JAVA, PROGRAMS / "Work.java"], "uthreads", "--json"))
    assert header["schema"] == "usdtkit.uthreads/1"
    for kind in ("thread start", "thread stop"):
        names = [row["name"] for row in rows if row["kind"] == kind and row["name"].startswith("worker-")]
        assert names == [f"worker-{n}" for n in range(31)] or sorted(names) == sorted(f"worker-{n}" for n in range(31))


def test_threads_of_a_c_program(compile_c, spawn, wait_for_line):
    process = spawn([compile_c("threads.c", "-O1", "-pthread"), "7", "1"])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "cthreads", str(process.pid), "--json")
    go(process)
    process.stdin.close()
    assert process.wait(20) == 0
    output = tracer.stdout.read()
    assert tracer.wait(20) == 0
    rows = json_lines(output)[1]
    assert [row["kind"] for row in rows] == ["pthread"] * 7
    assert len({row["name"] for row in rows}) == 1


def test_everything_that_runs(working, spawn, wait_for_line):
    php, ruby = working(ORDERS["php"][0]), working(ORDERS["ruby"][0])
    tracer = start_tracing(spawn, "ustat", "0.3", "--json", "-r", "1000")
    for process in (php, ruby):
        go(process)
        wait_for_line(process, "done")
    _, rows, _ = json_lines(stop_tracing(tracer)[0])
    totals = Counter()
    for row in rows:
        for category in ("method", "excp", "gc"):
            totals[row["pid"], category] += row[category] * row["interval_s"]
    assert round(totals[php.pid, "method"]) == 2 * 997 + 97
    assert round(totals[php.pid, "excp"]) == round(totals[ruby.pid, "excp"]) == 31
    assert totals[ruby.pid, "gc"] >= 13
    assert {row["command"] for row in rows if row["pid"] == php.pid} == {f"php {PROGRAMS / 'work.php'}"}


def test_runtimes_that_come_after_the_start(working, spawn, wait_for_line, tmp_path):
    """Files that nobody has mapped: copies of PHP, by another name, and of Node."""
    php = shutil.copy(os.path.realpath(shutil.which("php")), tmp_path / "php-fpm8.2")
    node = shutil.copy(os.path.realpath(shutil.which("node")), tmp_path / "node")
    linked = subprocess.run(["ldd", node], text=True, capture_output=True, check=True).stdout
    for library in re.findall(r"/\S+/libnode\.so\S*", linked):  # with Debian's
        shutil.copy(library, tmp_path)
    tracer = start_tracing(spawn, "ustat", "0.2", "--json", "-r", "1000")
    late = working([php, PROGRAMS / "work.php"])
    read_until(tracer, "php-fpm8.2", stream="stderr", timeout=60)
    go(late)
    wait_for_line(late, "done")
    later = working([node, "--expose-gc", PROGRAMS.parent / "collect.js"], LD_LIBRARY_PATH=str(tmp_path))
    read_until(tracer, f"{tmp_path}/", stream="stderr", timeout=60)
    go(later)
    assert later.wait(60) == 0
    _, rows, _ = json_lines(stop_tracing(tracer)[0])
    counted = Counter()
    for row in rows:
        for category in ("method", "gc"):
            counted[row["pid"], category] += row[category] * row["interval_s"]
    assert round(counted[late.pid, "method"]) == 2 * 997 + 97
    assert round(counted[later.pid, "gc"]) >= 20


def test_a_runtime_that_has_ended_keeps_its_words(working, spawn):
    source = 'function plain() {} echo "ready\\n"; for ($n = 0; fgets(STDIN); $n++) { plain(); if ($n) exit; }'
    process = working(["php", "-r", source])
    tracer = start_tracing(spawn, "ustat", "1", "-p", str(process.pid))
    go(process)
    rows = [read_until(tracer, str(process.pid), timeout=60)]
    go(process)
    assert process.wait(20) == 0
    output, _ = tracer.communicate(timeout=60)
    rows += [line for line in output.splitlines() if str(process.pid) in line]
    assert [row.split()[1:4] for row in rows] == [["php", "-r", "function"]] * 2


def test_no_runtime_at_all():
    done = usdtkit("ustat", "-l", "tcl", "-d", "0.2")
    assert done.returncode == 0 and "no tcl with probes runs here yet" in done.stderr


def test_a_command_from_its_start():
    done = usdtkit("ucalls", "--json", "-c", f"php {PROGRAMS / 'work.php'}", env=os.environ | {"USE_ZEND_DTRACE": "1"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{") and '"method"' in line]
    assert methods(rows)["Order.leaf"] == 997


def test_what_a_command_does_from_its_start():
    command = f"php {PROGRAMS / 'work.php'}"
    done = usdtkit("ustat", "--json", "-c", command, env=os.environ | {"USE_ZEND_DTRACE": "1"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"time"')]
    calls = 2 * 997 + 97 + 1  # the script itself
    assert round(sum(row["method"] * row["interval_s"] for row in rows)) == calls
    assert {row["command"] for row in rows} == {command}


@pytest.mark.parametrize(
    ("argv", "tool", "words"),
    [
        ([*JAVA, PROGRAMS / "Work.java"], "ucalls", ["hotspot:method__entry", "DTraceMethodProbes"]),
        ([*JAVA, PROGRAMS / "Work.java"], "uobjnew", ["hotspot:object__alloc", "DTraceAllocProbes"]),
        (["php", PROGRAMS / "work.php"], "uflow", ["php:function__entry", "USE_ZEND_DTRACE=1"]),
        (["php", PROGRAMS / "work.php"], "ugc", ["runs php"]),
        (["/usr/bin/python3", PROGRAMS / "work.py"], "pythoncalls", ["python:function__entry", "usdtkit run"]),
    ],
)
def test_what_a_build_or_a_start_lacks_is_said(working, argv, tool, words):
    process = working(argv, USE_ZEND_DTRACE="0")
    assert_explained(usdtkit(tool, process.pid), 4, *words)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["ucalls"], 2, ["there is nothing to trace"]),
        (["ucalls", "-S", "1"], 2, ["system calls"]),
        (["ucalls", "99999999"], 4, ["99999999"]),
        (["uflow", "-c", "sleep 1"], 4, ["no language that usdtkit knows"]),
        (["uflow", "-c", "no-such-program"], 4, ["no command 'no-such-program'"]),
        (["uflow", "--chrome", "/nowhere/x", "-c", "php -v"], 1, ["/nowhere/x"]),
        (["nodecalls", "-c", "true"], 4, ["no probes for calls", "nodegc"]),
    ],
)
def test_errors(options, code, words):
    done = usdtkit(*options, env=os.environ | {"USE_ZEND_DTRACE": "1"})
    assert_explained(done, code, *words)
