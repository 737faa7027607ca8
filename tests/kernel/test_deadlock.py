"""deadlock on a program whose threads lock in known orders."""

import csv
import io
import itertools
import re

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, names, start_tracing, usdtkit


@pytest.fixture
def trace(compile_c, spawn, ready):
    """trace(order, *options, code=0) -> (output, messages, addresses of the mutexes by name)."""

    def run(order, *options, code=0):
        program = ready([compile_c("mutexes.c", "-O2", "-pthread"), order, "97"])
        tracer = start_tracing(spawn, "deadlock", str(program.pid), *options)
        go(program)
        mutexes = dict(re.findall(r"(\w+) (0x[0-9a-f]+)", program.stdout.read()))
        return *end_of_tracing(tracer, code), mutexes

    return run


@pytest.mark.parametrize("order", ["same", "guarded", "try", "again", "recursive"])
def test_orders_without_a_cycle(order, trace):
    output, messages, _ = trace(order)
    assert output == ""
    assert "lost 0" in messages


def test_two_in_opposite_order(trace):
    output, _, mutexes = trace("opposite", "--json", code=1)
    header, edges, summary = json_lines(output)
    assert header["schema"] == "usdtkit.deadlock/2"
    assert summary["lost"] == 0
    assert [(edge["comm"], edge["held"], edge["wanted"]) for edge in edges] == [
        ("two", mutexes["second"], mutexes["first"]),
        ("one", mutexes["first"], mutexes["second"]),
    ]
    for edge, function in zip(edges, ("two", "one"), strict=True):
        assert names(edge["wanted_at"])[:3] == names(edge["held_at"])[:3] == ["pthread_mutex_lock", "nest", function]


def test_three_in_a_cycle(trace):
    output, _, mutexes = trace("circle", "--csv", code=1)
    edges = list(csv.DictReader(io.StringIO(output)))
    assert {edge["held"] for edge in edges} == set(mutexes.values())
    assert all(one["wanted"] == other["held"] for one, other in itertools.pairwise([*edges, edges[0]]))
    assert all(edge["wanted_at"].endswith(";nest;pthread_mutex_lock") for edge in edges)


def test_the_table(trace):
    output, _, mutexes = trace("opposite", "--all", code=1)
    assert output.count("Potential deadlock: M0 -> M1 -> M0") == 1
    assert f"(M0 = {mutexes['second']}, M1 = {mutexes['first']})" in output
    stack = r"        pthread_mutex_lock\n        nest\n        two\n"
    assert re.search(rf"\n +TID COMM +WANTED HELD\n +\d+ two +M1 +M0\n    wanted at\n{stack}", output)
    assert re.search(rf"    held since\n{stack}", output)


def test_other_symbols(trace, compile_c):
    path = compile_c("mutexes.c", "-O2", "-pthread")
    options = ("--binary", path, "--lock-symbols", "nest", "--unlock-symbols", "one,two")
    output, messages, _ = trace("opposite", *map(str, options))
    assert output == ""
    assert "received 100, lost 0" in messages  # 97 and 1 nested, of one thread each


def test_a_file_without_the_symbols(compile_c):
    assert_explained(usdtkit("deadlock", "--binary", compile_c("values.c")), 4, "pthread_mutex_lock")
