"""mutexstat on a program that holds a mutex for known times, as often as it is told."""

import csv
import io
import re

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, names, start_tracing, usdtkit

TIMES, HELD_NS = 97, 2_000_000


@pytest.fixture
def trace(compile_c, spawn, ready):
    """trace(order, *options) -> (output, messages, addresses of the mutexes by name)."""

    def run(order, *options):
        path = compile_c("mutexes.c", "-O2", "-pthread")
        program = ready([path, order, str(TIMES)])
        tracer = start_tracing(spawn, "mutexstat", "-p", str(program.pid), *options)
        go(program)
        mutexes = dict(re.findall(r"(\w+) (0x[0-9a-f]+)", program.stdout.read()))
        return *end_of_tracing(tracer), mutexes

    return run


def rows_of(output, mutex):
    """The rows of one mutex by who has locked it."""
    header, rows, summary = json_lines(output)
    assert header["schema"] == "usdtkit.mutexstat/3"
    assert (summary["lost"], summary["full"], summary["unmatched"]) == (0, 0, 0)
    assert all(row["average_ns"] == round(row["total_ns"] / row["count"]) for row in rows)
    return {row["stack"][0]["name"]: row for row in rows if row["mutex"] == mutex}


def test_waits(trace):
    output, _, mutexes = trace("held", "--json", "-m", "1000")
    row = rows_of(output, mutexes["first"])["waiter"]
    # Each time, unless it comes more than half of the time after the holder.
    assert TIMES * 0.7 < row["count"] <= TIMES
    assert row["max_ns"] >= row["average_ns"] > 1_000_000


def test_every_lock_that_was_taken(trace):
    output, _, mutexes = trace("held", "--json", "-m", "0")
    rows = rows_of(output, mutexes["first"])
    assert {function: row["count"] for function, row in rows.items()} == {"waiter": TIMES, "holder": TIMES}
    assert rows["holder"]["average_ns"] < rows["waiter"]["average_ns"]


def test_holds(trace):
    output, _, mutexes = trace("held", "--json", "--hold")
    rows = rows_of(output, mutexes["first"])
    assert {function: row["count"] for function, row in rows.items()} == {"waiter": TIMES, "holder": TIMES}
    assert rows["holder"]["total_ns"] > TIMES * HELD_NS
    assert rows["waiter"]["average_ns"] < rows["holder"]["average_ns"]


def test_a_recursive_mutex_is_held_until_its_last_unlock(trace):
    output, _, mutexes = trace("recursive", "--json", "--hold")
    _, rows, _ = json_lines(output)
    own = [row["count"] for row in rows if "two" in names(row["stack"])]
    assert sorted(own) == [1, 1, 1]  # twice once; first within nest, and in two itself
    assert sum(row["count"] for row in rows if row["mutex"] == mutexes["first"]) == TIMES + 2


def test_a_sleep_on_a_condition_holds_nothing(trace):
    output, _, mutexes = trace("sleeps", "--json", "--hold")
    row = rows_of(output, mutexes["first"])["sleeper"]
    _, rows, _ = json_lines(output)
    count = sum(row["count"] for row in rows if row["mutex"] == mutexes["first"])
    assert count == TIMES + 1
    assert row["average_ns"] < HELD_NS / 2


def test_table_csv_and_histograms_agree(trace):
    table, messages, mutexes = trace("held", "-m", "0", "-T")
    assert "lost 0" in messages
    time, _, heading, *lines = table.strip().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time)
    assert heading.split() == ["MUTEX", "COUNT", "TOTAL(ms)", "AVG(ms)", "MAX(ms)", "CALLER"]
    found = [line.split() for line in lines if mutexes["first"] in line]
    assert {(line[5].partition("+")[0], line[1]) for line in found} == {("waiter", str(TIMES)), ("holder", str(TIMES))}
    assert max(line.index(line.split()[5]) for line in lines) < 70
    stacks, _, mutexes = trace("held", "-m", "0", "-s")
    assert re.search(rf"{mutexes['first']} .* waiter\+0x[0-9a-f]+ < [\w.]+\+", stacks)
    rows = list(csv.DictReader(io.StringIO(trace("held", "-m", "0", "--csv")[0])))
    assert [row["count"] for row in rows if "waiter" in row["stack"]] == [str(TIMES)]
    shown, _, mutexes = trace("held", "--hold", "-H")
    assert re.search(rf"mutex={mutexes['first']}\n +hold : count", shown)
    output, _, mutexes = trace("held", "--hold", "-H", "--json")
    _, rows, _ = json_lines(output)
    (row,) = [row for row in rows if row["mutex"] == mutexes["first"]]
    assert (row["value"], row["count"]) == ("hold_ns", 2 * TIMES)
    assert sum(bucket["count"] for bucket in row["buckets"] if bucket["low"] >= 1_000_000) >= TIMES


def test_intervals_add_up(trace):
    output, _, mutexes = trace("held", "--json", "-m", "0", "-i", "0.1")
    _, rows, _ = json_lines(output)
    own = [row for row in rows if row["mutex"] == mutexes["first"] and row["stack"][0]["name"] == "waiter"]
    assert len(own) > 1
    assert sum(row["count"] for row in own) == TIMES


def test_nothing_to_attach_to():
    assert_explained(usdtkit("mutexstat", "-p", "999999999"), 4, "hint")
