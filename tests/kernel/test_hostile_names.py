"""Tools for languages with names of classes and methods that nobody would think of, and calls that never return."""

import json
import shutil
from collections import Counter

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing


@pytest.fixture
def traced(compile_c, spawn, wait_for_line, tmp_path):
    """traced(tool, *options) -> what the tool prints of tests/programs/languages/hostile.c, until that ends."""
    program = tmp_path / "perl5.36"
    shutil.copy(compile_c("languages/hostile.c", "-O1"), program)

    def trace(tool, *options):
        process = spawn([program])
        wait_for_line(process, "ready")
        tracer = start_tracing(spawn, tool, str(process.pid), *options)
        go(process)
        return end_of_tracing(tracer)

    return trace


def calls(output):
    return {row["method"]: row["calls"] for row in json_lines(output)[1]}


def test_every_call_is_counted_under_a_harmless_name(traced):
    output, messages = traced("ucalls")
    assert output.isprintable() or {c for c in output if not c.isprintable()} == {"\n"}
    counted = {line.rsplit(None, 1)[0]: line.rsplit(None, 1)[1] for line in output.splitlines()[2:]}
    assert set(counted.values()) == {"13", "26", "1"}
    assert {r"Order.\x1b[31m;red\x0aline", r"[a-z]*?.caf\xe9", "plain", "?.?"} <= counted.keys()
    assert "unreadable" in messages


def test_patterns_are_what_they_say(traced):
    assert calls(traced("ucalls", "--json", "-C", "[a-z]")[0]) == {r"[a-z]*?.caf\xe9": 13}
    # The part that differs lies behind what a table has room for.
    assert list(calls(traced("ucalls", "--json", "-C", "*Two")[0]).values()) == [13]
    assert calls(traced("ucalls", "--json", "-M", "*\x1b*")[0]) == {"Order.\x1b[31m;red\nline": 13}


def test_flow_goes_on_behind_what_never_returned(traced):
    _, rows, summary = json_lines(traced("uflow", "--json", "-C", "Order")[0])
    rows = [row for row in rows if "red" not in row["flow"]]
    died = "  <- Order.died (no return)"
    turn = ["<- Order.unheard", "-> Order.outer", "  -> Order.died", died, "<- Order.outer"]
    assert [row["flow"] for row in rows] == [*turn * 13, "-> Order.last", "<- Order.last (no return)"]
    assert [row["reported"] for row in rows] == ["no return" not in row["flow"] for row in rows]
    assert summary["lost"] == 0


def test_a_chrome_trace_that_every_reader_takes(traced, tmp_path):
    """What the trace event format says of B and E: by thread, in the order of time, each E for the B before it."""
    assert traced("uflow", "--chrome", str(tmp_path / "flow.json"))[0] == ""
    text = (tmp_path / "flow.json").read_text()
    assert text.isascii() and "\x1b" not in text
    events, open_ = json.loads(text), []
    for event in events:
        assert event.keys() == {"ph", "name", "ts", "pid", "tid"}
        if event["ph"] == "B":
            open_.append(event["name"])
        else:
            assert event["ph"] == "E" and open_.pop() == event["name"]
    assert not open_
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    begun = Counter(event["name"] for event in events if event["ph"] == "B")
    assert begun["Order.outer"] == begun["Order.died"] == 13 and begun["Order.last"] == 1
    assert "Order.unheard" not in begun


def test_folded_stacks_of_hostile_names(traced):
    lines = traced("uflow", "-f")[0].splitlines()
    stacks = {line.rpartition(" ")[0] for line in lines}
    assert {r"Order.\x1b[31m:red\x0aline", "Order.outer;Order.died", "Order.last"} <= stacks
    assert all(line.rpartition(" ")[2].isdecimal() for line in lines)
