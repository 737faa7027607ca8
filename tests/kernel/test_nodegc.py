"""nodegc, which is ugc -l node: collections of a known number, kind and reason, and V8's own account of them."""

import csv
import io
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit

pytestmark = pytest.mark.machine

ASKED = "collection mark-compact reason=testing"
PROGRAM = Path(__file__).parents[1] / "programs" / "collect.js"


@pytest.fixture
def node(spawn, wait_for_line):
    process = spawn(["node", "--expose-gc", "--trace-gc", PROGRAM])
    wait_for_line(process, "ready")
    return process


def trace(spawn, node, *options):
    """(output, messages) of the tool over all that the program does, and the pauses in ms that V8 prints itself."""
    tracer = start_tracing(spawn, "nodegc", "-p", str(node.pid), *options)
    go(node)
    own = [float(pause) for pause in re.findall(r" MB, ([\d.]+) / .* testing", node.stdout.read())]
    return *end_of_tracing(tracer), own


def test_every_collection_of_two_heaps(spawn, node):
    output, _, own = trace(spawn, node, "--json")
    header, events, summary = json_lines(output)
    assert header["schema"] == "usdtkit.ugc/1"
    asked = [event for event in events if event["start"]["reason"] == "testing"]
    assert Counter(event["tid"] == node.pid for event in asked) == {True: 13, False: 7}
    assert {(event["pid"], event["description"]) for event in asked} == {(node.pid, ASKED)}
    assert {event["start"]["collector"] for event in asked} == {"mark-compact"}
    assert [event["time_ns"] for event in events] == sorted(event["time_ns"] for event in events)
    # V8's pause has more around it: the callbacks before and after.
    assert len(own) == 20
    assert all(
        event["latency_ns"] / 1e6 < pause * 1.05 + 0.2
        for event, pause in zip(sorted(asked, key=lambda e: e["latency_ns"]), sorted(own), strict=True)
    )
    assert sum(event["latency_ns"] for event in asked) / 1e6 > sum(own) * 0.5
    assert (summary["received"], summary["lost"], summary["unmatched"]) == (len(events), 0, 0)


def test_the_table(spawn, node):
    output, messages, _ = trace(spawn, node)
    heading, *lines = output.splitlines()
    assert heading.split() == ["TIME", "PID", "TID", "TIME(us)", "DESCRIPTION"]
    assert sum(line.endswith(ASKED) for line in lines) == 20
    assert max(map(len, lines)) < 100
    assert f"received {len(lines)}, lost 0" in messages


def test_csv_and_a_threshold(spawn, node):
    output, _, _ = trace(spawn, node, "--csv", "-M", "0.001", "-F", "testing")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["description"] for row in rows] == [ASKED] * 20
    assert min(int(row["latency_ns"]) for row in rows) >= 1000


def test_the_language_is_found_out(spawn, node):
    tracer = start_tracing(spawn, "ugc", str(node.pid), "-M", "60000")
    go(node)
    output, messages = end_of_tracing(tracer)
    assert len(output.splitlines()) == 1 and "received 0" in messages


def test_every_node_that_runs(spawn, node):
    tracer = start_tracing(spawn, "nodegc", "--json")
    go(node)
    node.wait(60)
    tracer.send_signal(signal.SIGINT)
    _, events, _ = json_lines(end_of_tracing(tracer)[0])
    assert sum((event["pid"], event["description"]) == (node.pid, ASKED) for event in events) == 20


def test_a_command_from_its_start(spawn):
    command = "node --expose-gc -e 'for (let i = 0; i < 13; i++) global.gc()'"
    tracer = start_tracing(spawn, "nodegc", "--json", "-c", command)
    _, events, _ = json_lines(end_of_tracing(tracer)[0])
    assert sum(event["start"]["reason"] == "testing" for event in events) == 13


def test_a_program_without_the_function(compile_c, ready):
    process = ready([compile_c("threads.c", "-pthread"), "1"])
    assert_explained(usdtkit("nodegc", "-p", process.pid), 4, "hint")
