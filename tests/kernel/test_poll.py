"""Sessions in an event loop of one's own: a descriptor to wait for, and callbacks within a budget."""

import select

import pytest

from usdtkit import trace
from usdtkit.errors import UsageError


@pytest.fixture
def hit(declare):
    return declare("polled:hit", n="u64")


@pytest.fixture
def session(hit):
    with trace.Session() as session:
        session.usdt("polled:hit", path=hit.path).emit("n")
        session.start()
        yield session


def fire(hit, times):
    for n in range(times):
        hit(n)


def is_readable(session):
    return bool(select.select([session], [], [], 0)[0])


def test_a_budget(session, hit):
    fire(hit, 997)
    seen, sizes = [], []
    while is_readable(session):
        sizes.append(session.poll(lambda event: seen.append(event.n), budget=100))
    assert sizes == [100] * 9 + [97]
    assert seen == list(range(997))
    assert session.poll(seen.append) == 0 and not session.ended


def test_it_is_readable_when_there_is_something_to_do(session, hit):
    assert not is_readable(session)
    hit(1)
    assert select.select([session], [], [], 20)[0]
    assert session.poll(lambda event: None) == 1
    assert not is_readable(session)
    session.stop()
    assert is_readable(session)
    assert session.poll(lambda event: None) == 0 and session.ended


def test_what_was_sent_before_the_end_comes_after_it(session, hit):
    fire(hit, 97)
    session.stop()
    seen = []
    assert session.poll(seen.append, budget=13) == 13
    assert session.ended
    while session.poll(seen.append, budget=13):
        assert len(seen) <= 97
    assert [event.n for event in seen] == list(range(97))
    assert session.summary().received == 97


def test_waiting_for_an_event_and_for_the_duration(hit, compile_c, ready):
    process = ready([compile_c("threads.c", "-pthread"), 1, 97])
    with trace.Session(pid=process.pid) as session:
        session.usdt("pool:work").count()
        session.start()
        process.stdin.close()
        while not session.ended:
            assert session.poll(print, timeout=None) == 0
        assert session.summary().hits == 97
    with trace.Session(duration=0.1) as session:
        session.usdt("polled:hit", path=hit.path).emit()
        assert session.poll(print, timeout=20) == 0 and session.ended


def test_a_callback_that_fails_loses_nothing(session, hit):
    fire(hit, 13)
    seen = []

    def fail(event):
        seen.append(event.n)
        if event.n == 7:
            raise RuntimeError("in the callback")

    with pytest.raises(RuntimeError):
        session.poll(fail)
    session.poll(fail)
    assert seen == list(range(13))


def test_a_reader_of_both_kinds(session, hit):
    fire(hit, 97)
    seen = []
    session.poll(seen.append, budget=10)
    seen += session.drain()
    assert [event.n for event in seen] == list(range(97))
    assert not is_readable(session)


def test_a_session_that_does_not_run_has_no_descriptor(hit):
    with trace.Session() as session, pytest.raises(UsageError):
        session.fileno()


def test_a_slow_reader_never_holds_up_the_program(stepper):
    target = stepper()
    with trace.Session(pid=target.pid, ring_size=4096) as session:
        session.usdt("step:plain").emit(n=trace.arg(1))
        session.start()
        target.fire(9973)  # nobody reads meanwhile
        received = session.poll(lambda event: None)
        while more := session.poll(lambda event: None):
            received += more
        summary = session.summary()
    assert 0 < received == summary.received
    assert summary.received + summary.lost == 9973
