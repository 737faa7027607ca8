"""Maps in the kernel that sources keep: entries made, replaced, deleted, asked for, read, and too many of them."""

import pytest
from programs.calls import run

from usdtkit.errors import UsageError
from usdtkit.trace import Session, arg, now, pid, tid, uprobe, ustack


def test_entries(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        latest = session.map(i="u64", since="u64", stack="stack")
        work = session.uprobe(path, "work")
        assert work.put(latest, arg(1), i=arg(2), since=now, stack=ustack) is work
        work.where((arg(1) == 7) & (arg(2) == 996)).delete(latest, arg(1))
        assert list(latest.entries()) == []
        run(session, process)
        entries = {entry.key: entry for entry in latest.entries()}
        assert set(entries) == set(range(10)) - {7}
        assert {(entry.pid, entry.i, entry.stack.frames[0].name) for entry in entries.values()} == {
            (process.pid, 996, "work")
        }
        assert all(entry.since > 0 for entry in entries.values())
        assert session.summary().hits == 9970


def test_what_an_entry_holds_is_an_expression(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        before = session.map(i="i64", where="stack")
        work = session.uprobe(path, "work")
        first = work.where(~before.has(tid)).count()
        again = work.where(before.has(tid)).count(ahead=arg(2).cast("i64") - before.get("i", tid), process=pid)
        stacks = work.where(arg(2) == 996).count(stack=before.get("where", tid))
        work.put(before, tid, i=arg(2), where=ustack)
        run(session, process)
        # The kernel may refuse an entry for which threads compete; that is counted.
        refused = session.summary().full
        assert 10 <= first.read()[()] <= 10 + refused
        assert sum(again.read().values()) == 9970 - first.read()[()]
        assert refused or again.read() == {(1, process.pid): 9960}
        assert sum(stacks.read().values()) == 10
        assert {stack.frames[0].name for (stack,) in stacks.read()} == {"work"}


def test_actions_that_go_ahead(calls):
    """A source that was handed out by whoever deletes the entry at the same hit."""
    process, path = calls
    with Session(pid=process.pid) as session:
        calls = session.map(i="u64")
        work = session.uprobe(path, "work")
        work.where(arg(2) == 0).put(calls, tid, i=97)
        last = work.where(arg(2) == 996)
        last.delete(calls, tid)
        ahead = last.ahead()
        first = ahead.count(i=calls.get("i", tid))
        second = ahead.where(calls.has(tid)).count()
        behind = last.count(i=calls.get("i", tid))
        run(session, process)
        assert first.read() == {(97,): 10}
        assert second.read() == {(): 10}
        assert behind.read() == {(0,): 10}


def test_a_pair_whose_start_acts(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        inside = session.map(since="u64")
        pair = session.pair(uprobe(path, "work"), keep={"was": inside.get("since", tid)})
        pair.start.put(inside, tid, since=now)
        pair.where((pair.kept("was") == 0) & inside.has(tid)).emit(since=inside.get("since", tid))
        pair.delete(inside, tid)
        events = run(session, process)
        assert len(events) == 9970
        assert all(0 < event.since <= event.time_ns for event in events)
        assert list(inside.entries()) == []


def test_what_finds_no_room_is_counted(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        small = session.map(capacity=100, i="u64")
        session.uprobe(path, "work").put(small, arg(1) * 1000 + arg(2), i=arg(2))
        run(session, process)
        assert len(list(small.entries())) == 100
        assert session.summary().full == 9970 - 100


def test_equal_programs_for_all_sizes(calls):
    _, path = calls
    texts = set()
    for room in (10, 1000):
        with Session() as session:
            session.uprobe(path, "work").put(session.map(capacity=room, i="u64"), arg(1), i=arg(2) + room)
            texts.add(session.program().text)
    assert len(texts) == 1


def test_usage():
    with Session() as session:
        for wrong in ({}, {"pid": "u64"}, {"x": "str"}, {"x": "u64", "room": 0}):
            with pytest.raises(UsageError):
                session.map(**wrong)
        one = session.map(size="u64")
        with pytest.raises(UsageError, match="no field 'length'"):
            one.get("length", tid)
        with pytest.raises(UsageError, match="size"):
            session.uprobe("c", "malloc").put(one, arg(1))
