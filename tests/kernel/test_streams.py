"""The ways in which events leave a session: one by one, asynchronously, in columns; and how large they are."""

import asyncio
import threading

import pytest

from usdtkit import trace
from usdtkit.trace import cstr
from usdtkit.trace.events import Decoders


@pytest.fixture
def hit(declare):
    return declare("own:hit", n="u64", text="str", x="f64", flag="bool")


def fire(probe, times):
    for n in range(times):
        probe(n, "t" * (n % 200), n / 2, n % 2 == 0)


def test_columns(hit):
    with trace.Session() as session:
        session.usdt("own:hit", path=hit.path).emit()
        session.start()
        fire(hit, 997)
        session.stop()
        batches = list(session.batches())
    assert sum(len(batch) for batch in batches) == session.received == 997
    assert [n for batch in batches for n in batch["n"]] == list(range(997))
    assert [x for batch in batches for x in batch["x"]] == [n / 2 for n in range(997)]
    assert [flag for batch in batches for flag in batch["flag"]] == [int(n % 2 == 0) for n in range(997)]
    assert [text for batch in batches for text in batch["text"]] == ["t" * min(n % 200, 128) for n in range(997)]
    times = [time for batch in batches for time in batch["time_ns"]]
    assert times == sorted(times)
    assert {name for batch in batches for name in batch["probe"]} == {"own:hit"}


def test_two_types_of_events_in_one_stream(hit):
    with trace.Session() as session:
        source = session.usdt("own:hit", path=hit.path)
        source.emit("n")
        source.where(trace.arg("n") % 10 == 0).emit("text")
        session.start()
        fire(hit, 97)
        batches = list(session.drain_columns())
    assert sorted((tuple(batch)[4:], len(batch)) for batch in batches) == [(("n",), 97), (("text",), 10)]


def test_async_iteration(hit):
    async def collect():
        seen = []
        with trace.Session() as session:
            session.usdt("own:hit", path=hit.path).emit("n")
            session.start()
            firing = threading.Thread(target=fire, args=(hit, 97))
            firing.start()
            async for event in session:
                seen.append(event.n)
                if len(seen) == 97:
                    session.stop()
            firing.join()
        return seen

    assert asyncio.run(asyncio.wait_for(collect(), 30)) == list(range(97))


def test_async_iteration_ends_with_the_duration(hit):
    async def collect():
        with trace.Session(duration=0.2) as session:
            session.usdt("own:hit", path=hit.path).emit("n")
            return [event async for event in session]

    assert asyncio.run(asyncio.wait_for(collect(), 30)) == []


def test_short_strings_take_little_room(hit):
    """A ring of 128 KiB has room for 997 short strings, though each may have 4,096 bytes."""
    with trace.Session(ring_size=1 << 17) as session:
        session.usdt("own:hit", path=hit.path).emit("n", text=cstr("text", 4096))
        session.start()
        for n in range(997):
            hit(n, "short", 0.0, True)
        events = list(session.drain())
    assert len(events) == 997 and session.summary().lost == 0
    assert {event.text for event in events} == {"short"}


@pytest.mark.parametrize("length", [0, 1, 25, 26, 27, 28, 29, 121, 122, 123, 124, 125, 499, 500, 501])
def test_strings_at_the_borders_of_the_sizes(hit, length):
    text = "".join(chr(ord("a") + n % 26) for n in range(length))
    with trace.Session() as session:
        session.usdt("own:hit", path=hit.path).emit(text=cstr("text", 500), again=cstr("text", 30))
        session.start()
        hit(0, text, 0.0, True)
        (event,) = session.drain()
    assert event.text == text[:500]
    assert isinstance(event.text, trace.Truncated) == (length > 500)
    assert event.again == text[:30]
    assert isinstance(event.again, trace.Truncated) == (length > 30)


def test_a_reader_that_stops_and_comes_back_misses_nothing(hit):
    with trace.Session() as session:
        session.usdt("own:hit", path=hit.path).emit("n")
        session.start()
        fire(hit, 97)
        seen = [event.n for event, _ in zip(session, range(10), strict=False)]
        session.stop()
        seen += [event.n for event in session]
    # zip takes one more from the session than it hands on.
    assert sorted({*seen, *range(97)} - set(seen)) in ([], [10])


def test_a_session_that_is_closed_while_its_events_are_made(hit, monkeypatch):
    make = Decoders.events

    def close_and_make(decoders, data, enough):
        session.close()
        return make(decoders, data, enough)

    with trace.Session() as session:
        session.usdt("own:hit", path=hit.path).emit("n")
        session.start()
        fire(hit, 997)
        monkeypatch.setattr(Decoders, "events", close_and_make)
        assert [event.n for event in session.drain()] == list(range(997))
        assert list(session.drain()) == []
