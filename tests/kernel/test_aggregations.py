"""What the kernel counts and sums is what Python counts and sums over the same values."""

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.bpf.statements import AGGREGATION_ENTRIES
from usdtkit.errors import UsageError

VALUES = [0, 1, 2, 3, 4, 7, 8, 1000, 2**31, 2**32 - 1, 2**32, 2**53, 2**61, *range(97)]


@pytest.fixture
def numbers(declare):
    return declare("own:numbers", n="u64", i="i64", text="str", data="bytes")


def source_of(session, probe):
    return session.usdt(f"{probe.provider}:{probe.name}", path=probe.path)


def test_counts_by_string_and_number(numbers):
    expected = Counter()
    with trace.Session() as session:
        counts = source_of(session, numbers).count("text", "n")
        assert counts.read() == {}  # before the start
        session.start()
        for n in range(997):
            numbers(n % 7, 0, f"item {n % 13}", b"")
            expected[f"item {n % 13}", n % 7] += 1
        assert counts.read() == expected
        assert counts.keys == ("text", "n")


def test_counts_without_keys_and_with_a_condition(numbers):
    with trace.Session() as session:
        source = source_of(session, numbers)
        everything, some = source.count(), source.where(trace.arg("n") % 3 == 0).count()
        session.start()
        for n in range(997):
            numbers(n, 0, "", b"")
        assert everything.read() == {(): 997}
        assert some.read() == {(): 333}


def test_keys_of_every_kind(declare):
    probe = declare("own:kinds", i="i32", b="bool", f="f64", s="str", data="bytes")
    values = [(-1, True, 0.5, "é", b"\0a"), (5, False, -1.5, "", b""), (-1, True, 0.5, "é", b"\0b")]
    with trace.Session(string_size=24) as session:
        counts = source_of(session, probe).count("i", "b", "f", "s", "data", "comm", again=trace.arg("s"))
        session.start()
        for value in values:
            probe(*value)
        keys = counts.read()
    comm = Path("/proc/thread-self/comm").read_text()[:-1]  # a name may end in a newline, too
    assert keys == {(*value, comm, value[3]): 1 for value in values}


def test_strings_that_are_equal_as_far_as_they_are_read_are_one_key(numbers):
    texts = ["abcd", "abcdX", "abcdXY", "abcdZZZZ", "abc"]
    with trace.Session() as session:
        source = source_of(session, numbers)
        by_text = source.count(text=trace.cstr("text", 4))
        by_data = source.count(data=trace.buffer(trace.arg("data"), 8, 4))
        lengths = source.hist("n", text=trace.cstr("text", 4))
        session.start()
        for text in texts:
            numbers(len(text), 0, text, text.encode() + b"12345678")
        assert by_text.read() == {("abcd",): 4, ("abc",): 1}
        assert by_data.read() == {(b"abcd",): 4, (b"abc1",): 1}
        assert lengths.read()[("abcd",)].sum == 4 + 5 + 6 + 8


@pytest.mark.parametrize("name", ["n", "i"])
def test_sums_and_the_greatest_of_them(numbers, name):
    expected = Counter()
    with trace.Session() as session:
        source = source_of(session, numbers)
        total, sums, stats = source.sum(name), source.sum(name, "text"), source.stats(name, "text")
        session.start()
        for at, value in enumerate(VALUES):
            text, value = f"item {at % 7}", -value if name == "i" and at % 3 else value
            numbers(abs(value), value, text, b"")
            expected[text,] += value
            if at == 30:
                assert sums.delta() == expected
                before = Counter(expected)
        assert total.read() == {(): expected.total()}
        assert sums.read() == expected
        assert sums.delta() == {key: amount - before[key] for key, amount in expected.items()}
        assert sums.top(3) == expected.most_common(3)
        assert [(key, row.sum) for key, row in stats.top(3)] == expected.most_common(3)
        assert [row.count for _, row in stats.top(7, by="count")] == [len(VALUES[at::7]) for at in range(7)]


@pytest.mark.parametrize("keyed", [False, True])
def test_a_histogram(numbers, keyed):
    buckets, sums = defaultdict(Counter), Counter()
    with trace.Session() as session:
        histogram = source_of(session, numbers).hist("n", *(["text"] if keyed else []))
        session.start()
        for at, value in enumerate(VALUES):
            key = ("even" if at % 2 == 0 else "odd",) if keyed else ()
            numbers(value, 0, *key or ("",), b"")
            buckets[key][histogram.scale.bucket(value)] += 1
            sums[key] += value
        read = histogram.read()
    assert {key: distribution.buckets for key, distribution in read.items()} == buckets
    assert {key: distribution.sum for key, distribution in read.items()} == sums
    assert {key: distribution.count for key, distribution in read.items()} == {
        key: sum(counts.values()) for key, counts in buckets.items()
    }
    assert all(read[key].average == sums[key] / read[key].count for key in sums)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_histogram_of_numbers_below_zero(numbers, keyed):
    values = [-5, -1, 0, 3, -(2**40), 7]
    with trace.Session() as session:
        histogram = source_of(session, numbers).hist("i", *(["text"] if keyed else []))
        session.start()
        for value in values:
            numbers(0, value, "", b"")
        [distribution] = histogram.read().values()
    assert distribution.sum == sum(values)
    assert distribution.buckets == {0: 3, 1: 1, 4: 1, 8: 1}


def test_a_histogram_of_latency(compile_c, ready):
    path = str(compile_c("pairs.c", "-O2", "-pthread"))
    process = ready([path, "(.)", 97])
    with trace.Session(pid=process.pid) as session:
        pair = session.pair(trace.usdt("nest:start"), trace.usdt("nest:end")).emit("latency")
        histogram = pair.hist("latency")
        session.start()
        process.stdin.close()
        latencies = [event.latency_ns for event in session]
        distribution = histogram.read()[()]
    assert distribution.buckets == Counter(map(histogram.scale.bucket, latencies))
    assert distribution.sum == sum(latencies)


def test_percentiles_are_those_of_the_same_values_as_events(numbers):
    values = [round(random.Random(seed).lognormvariate(11, 1.5)) for seed in range(997)]
    with trace.Session() as session:
        source = source_of(session, numbers).emit("n")
        histogram = source.hist("n", "text")
        session.start()
        for value in values:
            numbers(value, 0, "x", b"")
        [distribution] = histogram.read().values()
        received = sorted(event.n for event in session.drain())
    assert received == sorted(values)
    for percent in (1, 50, 90, 99, 100):
        exact = received[math.ceil(percent * 997 / 100) - 1]
        assert abs(distribution.percentile(percent) - exact) <= exact / 32


def test_nothing_happened(numbers):
    with trace.Session() as session:
        source = source_of(session, numbers)
        count, keyed, histogram, keyed_histogram = (
            source.count(),
            source.count("n"),
            source.hist("n"),
            source.hist("n", "text"),
        )
        session.start()
        assert count.read() == {(): 0}
        assert keyed.read() == keyed_histogram.read() == {}
        assert (histogram.read()[()].count, histogram.read()[()].average) == (0, 0)


def test_what_a_full_table_does_not_take_is_counted(declare):
    probe = declare("own:full", n="u64")
    more = 997
    with trace.Session() as session:
        counts = source_of(session, probe).count("n")
        session.start()
        for n in range(AGGREGATION_ENTRIES + more):
            probe(n)
        probe(0)  # known keys go on
        summary = session.summary()
        read = counts.read()
    assert len(read) == AGGREGATION_ENTRIES
    assert read[0,] == 2
    assert sum(read.values()) + summary.full == summary.hits
    assert summary.full == more


def test_a_hit_that_a_full_histogram_does_not_take_is_counted_once(declare):
    probe = declare("own:full2", n="u64")
    with trace.Session(capacity=997) as session:
        histogram = source_of(session, probe).hist("n", "n")
        session.start()
        for n in range(997):
            probe(n)
        read = histogram.read()
        summary = session.summary()
    counted = sum(distribution.count for distribution in read.values())
    assert counted + summary.full == 997
    assert summary.full > 400  # a key has an entry for its bucket and one for its sum
    assert all(distribution.sum in (0, key) for (key,), distribution in read.items())


def test_two_threads_lose_no_increment(compile_c, ready):
    path = compile_c("threads.c", "-pthread")
    process = ready([path, 2, 99_991])
    with trace.Session(pid=process.pid) as session:
        source = session.usdt("pool:work")
        total, by_parity, histogram, keyed = (
            source.count(),
            source.count(odd=trace.arg(2) & 1),
            source.hist(trace.arg(2)),
            source.hist(trace.arg(2), one=trace.arg(2) * 0),
        )
        session.start()
        process.stdin.close()
        assert list(session) == []
        assert total.read() == {(): 2 * 99_991}
        assert by_parity.read() == {(0,): 2 * 49_996, (1,): 2 * 49_995}
        for distribution in (histogram.read()[()], keyed.read()[0,]):
            assert distribution.count == 2 * 99_991
            assert distribution.sum == 2 * sum(range(99_991))


def test_reading_while_it_goes_on_and_after_detaching(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        counts = session.usdt("step:plain").count(n=trace.arg(1))
        session.start()
        target.fire(97)
        target.fire(13)
        assert counts.read() == {(n,): 1 + (n < 13) for n in range(97)}
        session.detach()
        target.fire(13)
        assert sum(counts.read().values()) == 97 + 13


def test_keys_that_are_too_long_together(numbers):
    with trace.Session(string_size=200) as session:
        source_of(session, numbers).count("text", "data")
        with pytest.raises(UsageError, match="keys of") as raised:
            session.start()
    assert "cstr" in raised.value.hint


def test_statistics_since_the_last_look(numbers):
    with trace.Session() as session:
        table = source_of(session, numbers).stats("n", "text")
        session.start()
        for n in (5, 97):
            numbers(n, 0, "a", b"")
        assert {key: (one.count, one.sum) for key, one in table.delta().items()} == {("a",): (2, 102)}
        assert table.delta() == {}
        numbers(7, 0, "a", b"")
        numbers(11, 0, "b", b"")
        assert table.delta() == {("a",): trace.Statistics(1, 7, 5, 97), ("b",): trace.Statistics(1, 11, 11, 11)}
        assert table.read()["a",] + trace.Statistics(1, 1, 1, 1) == trace.Statistics(4, 110, 1, 97)
