"""Events in the order of their time: what a ring buffer may show, scripted, and what is handed out when."""

import random
from types import SimpleNamespace

import pytest

from usdtkit.trace import stream


class Ring:
    """Records as a kernel would have them: [time, size, is written]; a clock that each look at it moves on."""

    fd = -1

    def __init__(self, monkeypatch, most=3):
        self.records, self.position, self.most = [], 0, most
        self.now = 0
        monkeypatch.setattr(stream.time, "monotonic_ns", self.tick)
        self.while_read = lambda: None

    def tick(self):
        self.now += 1
        return self.now

    def reserve(self, *, late=0):
        record = [self.tick() + late, 8, False]
        self.records.append(record)
        return record

    def send(self):
        record = self.reserve()
        record[2] = True
        return record[0]

    @property
    def reserved(self):
        return 8 * len(self.records)

    @property
    def consumed(self):
        return 8 * self.position

    def read(self, decode):
        found = []
        while self.position < len(self.records) and self.records[self.position][2] and len(found) < self.most:
            found.append(self.records[self.position])
            self.position += 1
            self.while_read()
        return decode(found, 8 * len(found)) if found else None


@pytest.fixture
def ring(monkeypatch):
    return Ring(monkeypatch)


def opened(ring, size=1 << 20, **options):
    def events(records, enough):
        return [SimpleNamespace(time_ns=record[0]) for record in records], enough

    reading = stream.Stream(ring, size, SimpleNamespace(events=events), **{"ordered": True} | options)
    return lambda **now: [event.time_ns for events in reading.events(**now) for event in events]


def test_two_that_changed_places(ring):
    read = opened(ring)
    first, second = ring.reserve(late=3), ring.reserve()
    first[2] = second[2] = True
    ring.now += 5
    assert read() == [second[0], first[0]]
    assert read() == []


def test_what_is_not_yet_written_holds_up_only_what_could_be_later(ring):
    read = opened(ring)
    assert [ring.send(), ring.send()] == read()
    behind, busy = ring.send(), ring.reserve()
    ring.send()
    assert read() == []  # the busy one may be of the time before `behind`
    busy[2] = True
    assert read() == [behind, busy[0], busy[0] + 1]


def test_all_is_handed_out_when_no_more_can_come(ring):
    read = opened(ring)
    sent = ring.send()
    ring.reserve()
    assert read() == []
    assert read(last=True) == [sent]


def test_without_order_nothing_is_held(ring):
    read = opened(ring, ordered=False)
    first, second = ring.reserve(late=3), ring.reserve()
    first[2] = second[2] = True
    ring.reserve()
    assert read() == [first[0], second[0]]


def test_a_reader_that_never_finds_the_buffer_empty_still_gets_events(ring):
    read = opened(ring, size=8 * 20)
    ring.send()
    ring.while_read = ring.send
    seen = read()
    assert 10 <= len(seen) <= 21
    assert seen == sorted(seen)


def test_a_full_buffer_is_sorted_once(ring, monkeypatch):
    looks = []

    def time_of(event):
        looks.append(event)
        return event.time_ns

    monkeypatch.setattr(stream, "_time", time_of)
    read = opened(ring)
    sent = [ring.send() for _ in range(997)]
    assert read() == sent
    assert len(looks) < 2 * 997


@pytest.mark.parametrize("seed", range(23))
def test_any_order_of_events_becomes_that_of_time(ring, seed):
    chance = random.Random(seed)
    read, seen, busy = opened(ring), [], []

    def happen():
        for _ in range(chance.randrange(2)):
            record = ring.reserve()
            record[0] = 2**63  # the time is consumed when it is written
            busy.append(record)
        for record in chance.sample(busy, chance.randint(0, len(busy))):
            record[0], record[2] = ring.tick(), True
            busy.remove(record)

    ring.while_read = happen
    for _ in range(97):
        happen()
        seen += read()
    ring.while_read = lambda: None
    for record in busy:
        record[0], record[2] = ring.tick(), True
    seen += read(last=True)
    assert seen == sorted(seen)
    assert len(seen) == len(ring.records) > 31
