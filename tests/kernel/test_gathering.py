"""Sessions that let events gather: they are woken a few times for many events, and lose none for it."""

import asyncio
import fcntl
import os
import termios
import threading
import time
from array import array

import pytest
from commandline import json_lines, start_tracing, stop_tracing

from usdtkit import trace

LONG = 60.0  # no test waits for as long


@pytest.fixture
def hit(declare):
    return declare("gathered:hit", n="u64")


def gathering(hit, delay, **settings):
    session = trace.Session(delay=delay, **settings)
    session.usdt("gathered:hit", path=hit.path).emit("n")
    session.start()
    return session


def fired(hit, times, pause=0.0):
    """A thread that fires."""

    def fire():
        for n in range(times):
            hit(n)
            if pause:
                time.sleep(pause)

    thread = threading.Thread(target=fire)
    thread.start()
    return thread


def test_many_events_come_together(hit):
    with gathering(hit, 0.1) as session:
        thread = fired(hit, 97, 0.005)  # for half a second
        sizes = []
        for events in session.lists():
            sizes.append(len(events))
            if sum(sizes) == 97:
                session.stop()
        thread.join()
        assert (session.summary().received, session.summary().lost) == (97, 0)
    assert len(sizes) < 20


def test_without_a_delay_they_come_at_once(hit):
    with gathering(hit, 0.0) as session:
        for n in range(97):
            hit(n)
            assert [event.n for event in next(session.lists())] == [n]


def test_a_ring_that_fills_is_read_earlier(hit):
    """A sixteenth of it is full before the time is over."""
    with gathering(hit, LONG, ring_size=1 << 19) as session:
        thread = fired(hit, 9973)  # 40 bytes each
        since = time.monotonic()
        first = len(next(session.lists()))
        assert first >= (1 << 15) // 40 - 1
        assert time.monotonic() - since < LONG / 2
        thread.join()
        assert first + len([*session.drain()]) == 9973
        assert session.summary().lost == 0


@pytest.mark.parametrize("end", ["stop", "duration", "process"])
def test_the_end_of_a_session_does_not_wait(end, hit, compile_c, ready):
    since = time.monotonic()
    if end == "process":
        process = ready([compile_c("threads.c", "-pthread"), 1, 97])
        with trace.Session(pid=process.pid, delay=LONG) as session:
            session.usdt("pool:work").emit()
            session.start()
            process.stdin.close()
            assert len([*session]) == 97
    else:
        with gathering(hit, LONG, duration=0.3 if end == "duration" else None) as session:
            hit(7)
            if end == "stop":
                threading.Timer(0.1, session.stop).start()
            assert [event.n for event in session] == [7]
    assert time.monotonic() - since < LONG / 2


def test_an_interval_ends_in_time(hit):
    with gathering(hit, LONG) as session:
        hit(7)
        since, seen = time.monotonic(), []
        next(session.intervals(0.2, seen.append))
        assert time.monotonic() - since < LONG / 2
        assert [event.n for event in seen] == [7]


async def read(session, times):
    """The numbers of so many events, after which the session stops; how often the loop has turned meanwhile."""
    numbers, turns = [], 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    async for event in session:
        numbers.append(event.n)
        if len(numbers) == times:
            session.stop()
    turning.cancel()
    return numbers, turns


def test_in_asyncio(hit):
    with gathering(hit, 0.05) as session:
        thread = fired(hit, 97, 0.005)
        numbers, turns = asyncio.run(asyncio.wait_for(read(session, 97), LONG / 2))
        thread.join()
    assert numbers == [*range(97)]
    assert turns > 10  # other work went on


def test_a_ring_that_fills_is_read_earlier_in_asyncio(hit):
    with gathering(hit, LONG, ring_size=1 << 19) as session:
        thread = fired(hit, 3 * (1 << 15) // 40)
        numbers, _ = asyncio.run(asyncio.wait_for(read(session, 1), LONG / 2))
        thread.join()
        summary = session.summary()
    assert numbers == [*range(summary.hits)]  # those before the end, of which the first event was the sign
    assert len(numbers) >= (1 << 15) // 40 - 1
    assert summary.lost == 0


def test_poll_never_waits_for_more(hit):
    with gathering(hit, LONG) as session:
        hit(7)
        seen = []
        assert session.poll(lambda event: seen.append(event.n), timeout=LONG) == 1
        assert seen == [7]


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_tool_writes_lines_soon_and_ends_at_once(form, hit, spawn):
    tracer = start_tracing(spawn, "trace", "gathered:hit", "-p", os.getpid(), "--format", form)
    for n in range(1, 4):
        hit(n * 997)
        since = time.monotonic()
        while str(n * 997) not in tracer.stdout.readline():
            pass
        assert time.monotonic() - since < 5
    since = time.monotonic()
    output, messages = stop_tracing(tracer)
    assert time.monotonic() - since < 5
    assert '"received": 3, "lost": 0' in output if form == "json" else "received 3, lost 0" in messages


def test_a_reader_that_leaves_ends_the_trace(hit, spawn):
    tracer = start_tracing(spawn, "trace", "gathered:hit", "-p", os.getpid())
    hit(7)
    while "n=7" not in tracer.stdout.readline():
        pass
    tracer.stdout.close()
    while tracer.poll() is None:
        hit(7)
        time.sleep(0.01)
    assert "Traceback" not in tracer.stderr.read()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_signal_while_nobody_reads_costs_no_line(unbuffered, hit, spawn):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    tracer = start_tracing(spawn, "trace", "gathered:hit", "-p", os.getpid(), "--json", env=environment)
    fired(hit, 9973).join()
    waiting = array("i", [0])
    while waiting[0] < 1 << 15:  # the pipe fills: parts of its pages stay empty
        fcntl.ioctl(tracer.stdout, termios.FIONREAD, waiting)
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert [event["arguments"]["n"] for event in events] == [*range(9973)]
    assert (summary["received"], summary["lost"]) == (9973, 0)
