"""Several sources as one, sessions that are narrowed, and what a session tells whoever traces."""

import os

import pytest

from usdtkit import trace
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.trace import Sources, latency, ms, tid, usdt


@pytest.fixture
def probes(declare):
    """Three probes: two starts whose texts have other lengths, and an end."""
    from usdtkit import Provider

    owner = Provider("together")
    made = [owner.probe(f"start{n}", n="u64", text="str") for n in (1, 2)] + [owner.probe("done", n="i64", text="str")]
    owner.load()
    return made


def spec(probe):
    return usdt(f"{probe.provider}:{probe.name}", probe.path)


def test_one_table_adds_up_over_all_sources(probes):
    first, _, done = probes
    with trace.Session() as session:
        both = Sources(session.source(spec(first)), session.source(spec(done)))
        assert len(both) == 2 and bool(both) and [source.arguments for source in both] == [("n", "text")] * 2
        counts, keyless = both.where(trace.arg("n") != 5).count("text"), both.count()
        sums, statistics = both.sum("n", "text"), both.stats("n")
        histogram, linear = both.hist("n", "text"), both.hist("n", linear=(0, 100, 10))
        session.start()
        first(2, "a")
        first(5, "b")
        done(7, "a")
        assert counts.read() == {("a",): 2}
        assert counts.delta() == {("a",): 2} and counts.delta() == {}
        assert keyless.read() == {(): 3}
        assert sums.read() == {("a",): 9, ("b",): 5}
        assert {key: row.count for key, row in histogram.read().items()} == {("a",): 2, ("b",): 1}
        assert linear.read()[()].sum == 14
        [(key, row)] = statistics.read().items()
        assert key == () and (row.count, row.sum, row.min, row.max) == (3, 14, 2, 7)


def test_a_sum_is_signed_where_one_source_is(probes):
    first, _, done = probes
    with trace.Session() as session:
        sums = Sources(session.source(spec(done)), session.source(spec(first))).sum("n")
        session.start()
        done(-9, "")
        first(2, "")
        assert sums.read() == {(): -7}


def test_events_of_pairs_have_what_each_keeps(probes):
    first, second, done = probes
    with trace.Session() as session:
        pairs = Sources(
            session.pair(spec(first), spec(done), keep=["text"]),
            session.pair(spec(second), spec(done), keep={"text": trace.cstr("text", 2)}),
        )
        assert [pair.keeps for pair in pairs] == [("text",), ("text",)]
        pairs.where(latency < ms(100_000)).emit("latency", "text")
        session.start()
        first(1, "first")
        second(1, "second")
        done(0, "")
        session.stop()
        events = list(session)
    assert sorted(event.text for event in events) == ["first", "se"]
    assert all(event.latency_ns > 0 for event in events)


def test_no_sources_at_all(probes):
    with trace.Session() as session:
        none = Sources()
        assert not none and list(none.where(latency > ms(1)).emit("latency")) == []
        table = none.count("text", "latency", other=trace.arg(1))
        assert table.keys == ("text", "latency_ns", "other") and table.read() == {}
        with pytest.raises(UsageError, match="nothing to do"):
            session.start()


def test_a_narrowed_session_sees_only_such_hits(probes):
    first = probes[0]
    with trace.Session() as session:
        before = session.source(spec(first)).count()
        session.narrow(trace.arg("n") > 2)
        session.narrow(trace.arg("n") < 9)
        after = session.source(spec(first)).where(trace.arg("text") != "no").count()
        session.start()
        for n in range(12):
            first(n, "no" if n == 5 else "yes")
        assert before.read() == {(): 12} and after.read() == {(): 5}


def test_a_pair_is_narrowed_at_its_end(probes):
    """Its starts are always followed; as a source of its own the start is narrowed as well."""
    first, _, done = probes
    with trace.Session() as session:
        session.narrow(trace.arg("n") == 4)
        pair = session.pair(spec(first), spec(done), keep=["text"])
        pair.emit("text")
        starts = pair.start.count()
        session.start()
        for start, end in ((1, 4), (4, 1)):
            first(start, f"from {start}")
            done(end, "")
        session.stop()
        assert [event.text for event in session] == ["from 1"]
        assert starts.read() == {(): 1}


def test_entries_are_deleted_at_every_hit(probes):
    first, _, done = probes
    with trace.Session() as session:
        session.narrow(trace.arg("text") == "mine")
        entries = session.map(n="u64")
        session.source(spec(first)).put(entries, trace.arg("n"), n=1)
        session.source(spec(done)).delete(entries, trace.arg("n"))
        session.start()
        first(1, "mine")
        first(2, "mine")
        first(3, "other's")
        done(1, "other's")
        assert [entry.key for entry in entries.entries()] == [2]


def test_narrowed_to_a_thread(probes):
    first = probes[0]
    with trace.Session(pid=os.getpid()) as session:
        session.narrow(tid == 1)
        counts = session.source(spec(first)).count()
        session.start()
        first(1, "")
        assert counts.read() == {(): 0}


def test_remarks_come_once_and_in_order():
    session = trace.Session()
    with session:
        session.remark("The server logs nothing.")
        session.remark("It is old.")
        session.remark("The server logs nothing.")
        assert session.remarks == ["The server logs nothing.", "It is old."]


def test_what_a_session_traces():
    with trace.Session(pid=os.getpid()) as session:
        assert session.pids == session.search_pids == (os.getpid(),) and session.command == () and not session.offline
    with trace.Session(command=["true"]) as session:
        assert session.command == ("true",) and session.search_pids == ()


def test_an_offline_session_looks_at_nothing_here():
    with trace.Session(offline=True, pid=1, command=None) as session:
        assert session.offline
        pair = session.pair(usdt("mysql:query__start"), usdt("mysql:query__done"), keep=["query"])
        pair.emit("latency", "query")
        assert "hook_1" in session.program().text
        with pytest.raises(UsageError, match="offline"):
            session.start()
    with trace.Session(offline=True, command=["there-is-no-such-program"]) as session:
        assert session.command == ("there-is-no-such-program",)
        with pytest.raises(NotFoundError, match="nosuch:probe"):
            session.usdt("nosuch:probe")


def test_an_offline_session_that_lacks_what_is_looked_for_first():
    with trace.Session(offline=True, lacking=1) as session:
        with pytest.raises(NotFoundError):
            session.uprobe("c", "malloc")
        session.uprobe("c", "free").count()
        assert session.program().text


def test_a_program_without_actions():
    with trace.Session(offline=True) as session, pytest.raises(UsageError, match="nothing to do"):
        session.program()


@pytest.fixture
def different(declare):
    """Three probes of one provider: two with the same arguments, and one that shares one of them."""
    from usdtkit import Provider

    owner = Provider("different")
    made = [owner.probe(name, n="u64", text="str") for name in ("one", "two")]
    made.append(owner.probe("three", n="u64", price="f64"))
    owner.load()
    return made


def everything_of(different, session):
    """The fields of the events of a round of calls, and the hits that the session counted."""
    one, two, three = different
    session.start()
    for n in range(5):
        one(n, "one")
        two(n, "two")
        three(n, n / 2)
    session.stop()
    return [dict(zip(event._fields[3:], event[3:], strict=True)) for event in session], session.summary().hits


def test_each_of_several_probes_sends_its_own_arguments(different):
    with trace.Session(pid=os.getpid()) as session:
        session.usdt("different:*").where(trace.arg("n") != 3).emit()
        events, hits = everything_of(different, session)
    expected = []
    for n in (0, 1, 2, 4):
        expected += [{"probe": f"different:{name}", "n": n, "text": name} for name in ("one", "two")]
        expected += [{"probe": "different:three", "n": n, "price": n / 2}]
    assert events == expected
    assert hits == 15


def test_what_all_of_several_probes_have_can_be_counted_besides(different):
    with trace.Session(pid=os.getpid()) as session:
        source = session.usdt("different:*")
        source.emit()
        counts = source.count("n")
        assert len(session.plan()) == 6
        events, _ = everything_of(different, session)
        assert len(events) == 15
        assert counts.read() == {(n,): 3 for n in range(5)}


def test_a_pair_of_several_probes_sends_what_all_of_them_have(different):
    with trace.Session(pid=os.getpid()) as session:
        pair = session.pair(usdt("different:*"), usdt("different:three"))
        pair.start.emit()
        pair.emit()
        events, _ = everything_of(different, session)
    assert {tuple(event) for event in events} == {("probe", "n"), ("probe", "latency_ns", "n", "price")}
