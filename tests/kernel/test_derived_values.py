"""Values that a source names: in conditions, fields and keys they stand for what they were derived from."""

import os

import pytest

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import arg


def test_values_by_name_in_conditions_fields_and_keys(declare):
    probe = declare("derived:sale", price="u64", number="u64")
    with trace.Session(pid=os.getpid()) as session:
        sales = session.usdt("derived:sale").derive("tid", total=arg("price") * arg("number"))
        large = sales.where(arg("total") >= 100)
        large.emit()
        large.emit("total", "number")
        sums = large.sum("total", "number")
        session.start()
        for price, number in ((7, 5), (50, 2), (97, 31)):
            probe(price, number)
        session.stop()
        events = list(session)
        assert [event._asdict().keys() - {"time_ns", "pid", "probe"} for event in events[:2]] == [
            {"tid", "total"},
            {"tid", "total", "number"},
        ]
        assert [event.total for event in events] == [100, 100, 97 * 31, 97 * 31]
        assert sums.read() == {(2,): 100, (31,): 97 * 31}


def test_a_pair_sends_its_latency_too(compile_c, ready):
    process = ready([compile_c("recursive.c"), 7, 13])
    with trace.Session(pid=process.pid) as session:
        calls = session.pair(trace.uprobe(f"/proc/{process.pid}/exe", "descend"), keep={"depth": arg(1).cast("i32")})
        calls.derive("depth", twice=calls.kept("depth") * 2).emit()
        session.start()
        process.communicate("go\n", timeout=60)
        events = list(session)
    assert {(event.depth, event.twice) for event in events} == {(depth, 2 * depth) for depth in range(1, 8)}
    assert all(event.latency_ns > 0 for event in events)


@pytest.mark.parametrize("name", ["price", "pid", "class", "_total", "total"])
def test_names_that_mean_something_else(name, declare):
    declare("derived:sale", price="u64", number="u64")
    with trace.Session(pid=os.getpid()) as session:
        sales = session.usdt("derived:sale").derive(total=arg("price") * arg("number"))
        with pytest.raises(UsageError, match=name):
            sales.derive(**{name: arg("price") * 2})
