"""Tables have the capacity that was asked for, count exactly what they do not take, and say how they get more."""

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, usdtkit

from usdtkit import trace
from usdtkit.errors import UsageError

# Fires with every number below N, each once; then ends.
KEYS = r"""
#include <sys/sdt.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
  char go[2];
  write(1, "ready\n", 6);
  read(0, go, 1);
  for (long n = 0; n < atol(argv[1]); n++) DTRACE_PROBE1(keys, one, n);
  return 0;
}
"""


@pytest.fixture
def keys(compile_c, ready):
    path = compile_c(KEYS, "-O2")
    return lambda: ready([path, "997"])


@pytest.mark.parametrize(("capacity", "taken"), [(100, 100), (2000, 997), (None, 997)])
def test_keys_of_counts(declare, capacity, taken):
    probe = declare(f"own:capacity{capacity}", n="u64")
    with trace.Session(capacity=capacity) as session:
        counts = session.usdt(f"own:capacity{capacity}", path=probe.path).count("n")
        session.start()
        for n in range(997):
            probe(n)
        assert len(counts.read()) == taken
        summary, advice = session.summary(), session.advice()
    assert (summary.hits, summary.full) == (997, 997 - taken)
    assert [line for line in advice if "Session(capacity=N)" in line] == advice
    assert len(advice) == (taken < 997)


@pytest.mark.parametrize("kind", ["hist", "stats"])
def test_histograms_and_statistics(declare, kind):
    probe = declare(f"own:{kind}capacity", n="u64")
    with trace.Session(capacity=100) as session:
        table = getattr(session.usdt(f"own:{kind}capacity", path=probe.path), kind)("n", "n")
        session.start()
        for n in range(997):
            probe(n)
        # A histogram has an entry for each bucket, and one for the sum.
        assert 100 // 2 <= len(table.read()) <= 100
        assert session.summary().full >= 997 - 100


@pytest.mark.parametrize(("capacity", "taken"), [(100, 100), (2000, 997)])
def test_maps_of_a_session(declare, capacity, taken):
    probe = declare(f"own:map{capacity}", n="u64")
    with trace.Session(capacity=capacity) as session:
        kept, own = session.map(since="u64"), session.map(capacity=499, since="u64")
        source = session.usdt(f"own:map{capacity}", path=probe.path)
        source.put(kept, trace.arg("n"), since=trace.now)
        source.put(own, trace.arg("n"), since=trace.now)
        session.start()
        for n in range(997):
            probe(n)
        assert len(list(kept.entries())) == taken
        assert len(list(own.entries())) == 499  # it was given a capacity of its own
        assert session.summary().full == (997 - taken) + (997 - 499)


@pytest.mark.parametrize("capacity", [0, -1, (1 << 24) + 1])
def test_impossible_capacities(capacity):
    with pytest.raises(UsageError, match="capacity"):
        trace.Session(capacity=capacity)


def test_the_command_line_names_the_option(keys, spawn):
    for options, taken in ((["--capacity", "100"], 100), (["--capacity", "2000"], 997), ([], 997)):
        program = keys()
        tracer = start_tracing(
            *(spawn, "argdist", "-p", str(program.pid), "-C", "u::keys:one():u64:arg1", "--json", *options)
        )
        go(program)
        output, messages = end_of_tracing(tracer)
        _, rows, summary = json_lines(output)
        assert sum(row["count"] for row in rows) == taken
        assert (summary["hits"], summary["full"], summary["lost"]) == (997, 997 - taken, 0)
        told = [line for line in messages.splitlines() if "--capacity" in line]
        assert len(told) == (taken < 997)
        assert all("897 hits" in line for line in told)


def test_open_pairs(compile_c, ready):
    """Starts of 997 keys that are all open at once."""
    path = compile_c(
        KEYS.replace("return 0;", "for (long n = 0; n < atol(argv[1]); n++) DTRACE_PROBE1(keys, two, n); return 0;"),
        "-O2",
    )
    received = {}
    for capacity in (100, 2000):
        program = ready([path, "997"])
        with trace.Session(pid=program.pid, capacity=capacity) as session:
            session.pair(trace.usdt("keys:one"), trace.usdt("keys:two"), key="arg1").emit()
            session.start()
            go(program)
            received[capacity] = len(list(session))
            summary = session.summary()
        assert received[capacity] + summary.unmatched + summary.full >= 997
    assert received[2000] == 997
    assert received[100] < 997


def test_too_large_a_capacity_is_an_error():
    done = usdtkit("funccount", "c:getppid", "--capacity", "99999999999")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--capacity" in done.stderr and "hint" in done.stderr
    done = usdtkit("funccount", "c:getppid", "--capacity", str(1 << 30))
    assert (done.returncode, done.stdout) == (2, "")
    assert "from 1 to" in done.stderr
