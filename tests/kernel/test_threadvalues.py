"""Values that a session keeps of each thread: assigned, asked for, sent, and gone with the thread."""

import os

import pytest
from programs.calls import run

from usdtkit.errors import UsageError
from usdtkit.trace import Session, arg, cstr, now, uprobe


def test_each_thread_has_values_of_its_own(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        last = session.thread_values(i="i64", sum="u64", since="u64")
        work = session.uprobe(path, "work")
        work.assign(last, i=arg(2), since=now, sum=last.get("sum") + arg(2))
        first = work.ahead().where(~last.has()).count()
        steps = work.ahead().where(last.has()).count(step=arg(2).cast("i64") - last.get("i"))
        ends = work.where(arg(2) == 996).count(sum=last.get("sum"))
        run(session, process)
        assert first.read() == {(): 10}
        assert steps.read() == {(1,): 9960}
        assert ends.read() == {(sum(range(997)),): 10}
        assert session.summary().full == 0


def test_numbers_are_computed_from_what_was_before(calls):
    process, path = calls
    with Session(pid=process.pid) as session:
        values = session.thread_values(a="u64", b="u64")
        work = session.uprobe(path, "work")
        work.assign(values, a=values.get("b") + 1, b=values.get("a") + 1)
        ends = work.where(arg(2) == 996).count(a=values.get("a"), b=values.get("b"))
        run(session, process)
        assert ends.read() == {(997, 997): 10}


def test_texts_are_kept_sent_and_compared(spawn, compile_c, ready):
    path = str(compile_c("words.c"))
    process = ready([path])
    with Session(pid=process.pid) as session:
        said = session.thread_values(word=8, times="u64")
        say = session.uprobe(path, "say")
        say.assign(said, word=cstr(1, 100), times=said.get("times") + 1)
        again = session.uprobe(path, "again")
        again.emit(word=said.get("word"), times=said.get("times"))
        short = again.where(said.get("word") == "short").count()
        events = run(session, process)
        assert short.read() == {(): 1}
    assert [(event.word, event.times) for event in events] == [
        ("", 0), ("short", 1), ("12345678", 2), ("12345678", 3), (None, 4), ("", 5)
    ]  # fmt: skip
    assert [getattr(event.word, "__class__", None).__name__ for event in events][3] == "Truncated"


def test_what_threads_begin_with(calls):
    process, _ = calls
    with Session(pid=process.pid) as session:
        named = session.thread_values(number="i64", name=8)
        named.begin_with(lambda: {process.pid: {"name": "ada is too long", "number": -7}, 1: {}})
        ends = session.uprobe("c", "pthread_create")
        table = ends.where(named.has()).count(name=named.get("name"))
        run(session, process)
        assert table.read() == {("ada is t",): 10}


def test_what_hits_have_assigned_before_stays(declare):
    probe = declare("own:begun", n="u64")
    with Session(pid=os.getpid(), capacity=2) as session:
        values = session.thread_values(n="u64")
        source = session.usdt("own:begun", path=probe.path)
        source.assign(values, n=arg("n"))
        table = source.ahead().count(n=values.get("n"))

        def initial():
            probe(7)
            return {os.getpid(): {"n": 31}, 1: {}, 2: {}}  # for the last one there is no room

        values.begin_with(initial)
        session.start()
        probe(97)
        assert table.read() == {(0,): 1, (7,): 1}


def test_what_threads_begin_with_is_not_asked_for_where_nothing_reads_it(declare):
    probe = declare("own:unread", n="u64")
    with Session(pid=os.getpid()) as session:
        values = session.thread_values(n="u64")
        values.begin_with(lambda: pytest.fail("nothing reads it"))
        source = session.usdt("own:unread", path=probe.path)
        source.assign(values, n=arg("n"))
        hits = source.count()
        session.start()
        probe(97)
        assert hits.read() == {(): 1}


def test_what_cannot_be_kept():
    with Session(offline=True) as session:
        for kinds in ({}, {"a": "u32"}, {"a": 0}, {"a": 5000}):
            with pytest.raises(UsageError):
                session.thread_values(**kinds)
        values = session.thread_values(a="u64")
        with pytest.raises(UsageError, match="no value 'b'"):
            values.get("b")
        with pytest.raises(UsageError, match="no value 'b'"):
            session.source(uprobe("/bin/true", "main")).assign(values, b=1)
