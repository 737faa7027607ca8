"""Events of threads on several processors come in the order of their time, and none is lost for it."""

import pytest

from usdtkit import trace


@pytest.mark.parametrize("ring_size", [1 << 12, 1 << 16, 1 << 23])
def test_time_never_decreases(compile_c, ready, ring_size):
    process = ready([compile_c("threads.c", "-pthread"), 4, 49_999])
    with trace.Session(pid=process.pid, ring_size=ring_size, ordered=True) as session:
        session.usdt("pool:work").emit(thread=trace.arg(1), n=trace.arg(2))
        session.start()
        process.stdin.close()
        times, last = [], {}
        for event in session:
            times.append(event.time_ns)
            assert last.get(event.thread, -1) < event.n
            last[event.thread] = event.n
        summary = session.summary()
    assert times == sorted(times)
    assert len(times) == summary.received
    assert (summary.hits, summary.received + summary.lost) == (4 * 49_999, 4 * 49_999)


def test_also_where_strings_are_read_in_between(compile_c, ready):
    process = ready([compile_c("pairs.c", "-pthread"), "(())", 97, 4])
    with trace.Session(pid=process.pid, ordered=True) as session:
        session.usdt("nest:start").emit(text=trace.cstr(2, 4096))
        session.usdt("nest:end").emit()
        session.start()
        process.stdin.close()
        times = [event.time_ns for event in session]
    assert len(times) == 4 * 97 * 4
    assert times == sorted(times)
