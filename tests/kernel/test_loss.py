"""No event disappears uncounted: what is received and what is lost are together what was fired."""

import threading

import pytest

from usdtkit import trace
from usdtkit.kernel.attach.links import METHODS


def burst(target, session, times):
    """Fire while nobody reads, then read; the numbers that arrived."""
    session.start()
    target.fire(times)
    return [event.n for event in session.drain()]


@pytest.mark.parametrize("method", METHODS)
def test_a_burst_into_a_tiny_ring(method, stepper):
    target = stepper()
    with trace.Session(pid=target.pid, ring_size=4096, method=method) as session:
        session.usdt("step:plain").emit(n=trace.arg(1))
        numbers = burst(target, session, 100_003)
        summary = session.summary()
    assert 0 < summary.received < 4096 / 16
    assert numbers == list(range(summary.received))  # the first came, in order
    assert (summary.hits, summary.received + summary.lost) == (100_003, 100_003)


def test_after_a_burst_there_is_room_again(stepper):
    target = stepper()
    with trace.Session(pid=target.pid, ring_size=4096) as session:
        session.usdt("step:plain").emit(n=trace.arg(1), text=trace.cstr(2))
        for _ in range(97):
            assert len(burst(target, session, 97)) > 0
        summary = session.summary()
    assert summary.received + summary.lost == summary.hits == 97 * 97


def test_several_threads_into_a_tiny_ring(compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 8, 9973])
    with trace.Session(pid=process.pid, ring_size=4096) as session:
        session.usdt("pool:work").emit(thread=trace.arg(1), n=trace.arg(2))
        session.start()
        process.stdin.close()
        last = {}
        for event in session:
            assert last.get(event.thread, -1) < event.n  # each thread's in order
            last[event.thread] = event.n
        summary = session.summary()
    assert (summary.hits, summary.received + summary.lost) == (8 * 9973, 8 * 9973)


def test_losses_are_those_of_the_source_that_had_no_room(stepper):
    target = stepper()
    with trace.Session(pid=target.pid, ring_size=4096) as session:
        source = session.usdt("step:plain")
        source.emit(n=trace.arg(1), long=trace.buffer(2, 1024, 1024))
        counts = source.count()
        session.start()
        target.fire(997)
        received = len(list(session.drain()))
        assert counts.read() == {(): 997}  # counting does not need the ring
    assert 0 < received < 4
    assert session.summary().lost == 997 - received


def test_an_event_larger_than_the_ring_is_lost_each_time(stepper):
    target = stepper()
    with trace.Session(pid=target.pid, ring_size=4096) as session:
        session.usdt("step:plain").emit(data=trace.buffer(2, 4096, 4096))
        session.start()
        target.fire(97)
        assert list(session.drain()) == []
    assert session.summary().lost == 97


def test_a_reader_that_keeps_up_loses_nothing(compile_c, ready):
    path = compile_c("pairs.c", "-O2", "-pthread")
    process = ready([path, "(.)", 19_997])  # one start in 50 us for a second
    with trace.Session(pid=process.pid, ring_size=1 << 20) as session:
        session.usdt("nest:start").emit(n=trace.arg(1))
        session.start()
        threading.Thread(target=process.communicate, args=("go\n",)).start()
        assert [event.n for event in session] == list(range(1, 19_998))
    assert session.summary().lost == 0


def test_records_of_all_sizes_around_the_ring(declare):
    """Strings of every length, so that records wrap around the end of the ring in every place."""
    probe = declare("own:sizes", n="u64", text="str")
    with trace.Session(ring_size=4096) as session:
        source = session.usdt("own:sizes", path=probe.path)
        for size in (1, 9, 70, 333):
            source.where(trace.arg("n") % 4 == (1, 9, 70, 333).index(size)).emit("n", text=trace.cstr("text", size))
        session.start()
        for n in range(997):
            text = chr(ord("a") + n % 26) * (n % 400)
            probe(n, text)
            [event] = session.drain()
            assert event.n == n
            assert event.text == text[: (1, 9, 70, 333)[n % 4]]
    assert session.summary().lost == 0


def test_what_a_trace_does_not_show_is_counted(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        source = session.usdt("step:plain")
        source.where(trace.arg(1) % 7 == 0).emit(n=trace.arg(1))
        rest = source.where(trace.arg(1) % 7 != 0)
        rest.where(trace.arg(1) < 500).count_unseen("small number", "it is no multiple")
        rest.where(trace.arg(1) >= 500).count_unseen("large number", "it is no multiple")
        trace.Sources(source, source).where(trace.arg(1) == 996).count_unseen("last number", "it comes twice")
        source.where(trace.arg(1) < 0).count_unseen("negative number", "there are none")
        session.count_unseen("large number", "it is no multiple", lambda: 1_000)
        assert [unseen.count for unseen in session.summary().unseen] == [1_000]
        session.start()
        target.fire(997)
        session.detach()
        assert sum(1 for _ in session.drain()) == 143
    assert session.summary().unseen == (  # after the end as well
        trace.Unseen("small number", "it is no multiple", 500 - 72),
        trace.Unseen("large number", "it is no multiple", 497 - 71 + 1_000),
        trace.Unseen("last number", "it comes twice", 2),
    )
