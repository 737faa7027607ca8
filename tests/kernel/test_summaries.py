"""Statistics, histograms of equal width, differences between two looks, the most frequent keys, and the plan."""

import threading

import pytest

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import arg


@pytest.fixture
def hit(declare):
    return declare("own:sample", n="u64", i="i64", text="str")


def traced(session, probe):
    return session.usdt("own:sample", path=probe.path)


def test_statistics(hit):
    values = [n * 37 % 997 - 400 for n in range(997)]
    with trace.Session() as session:
        source = traced(session, hit)
        whole, by_text = source.stats("i"), source.stats(arg("n"), "text")
        session.start()
        assert whole.read() == {}
        for n, i in enumerate(values):
            hit(n, i, f"key {n % 3}")
        (total,) = whole.read().values()
        keyed = by_text.read()
    assert (total.count, total.sum, total.min, total.max) == (997, sum(values), min(values), max(values))
    assert total.average == sum(values) / 997
    assert keyed[("key 2",)] == trace.Statistics(332, sum(range(2, 997, 3)), 2, 995)


def test_histogram_of_equal_width(hit):
    with trace.Session() as session:
        source = traced(session, hit)
        plain = source.hist("i", linear=(-100, 100, 50))
        keyed = source.hist(arg("i") * 2, "text", linear=(0, 10, 3))
        session.start()
        for i in range(-150, 151):
            hit(0, i, "x")
        (distribution,) = plain.read().values()
        doubled = keyed.read()[("x",)]
    assert distribution.buckets == {0: 50, 1: 50, 2: 50, 3: 50, 4: 50, 5: 51}
    assert [distribution.scale.bounds(bucket) for bucket in (0, 1, 4, 5)] == [
        (None, -100),
        (-100, -50),
        (50, 100),
        (100, None),
    ]
    assert (distribution.sum, distribution.count) == (0, 301)
    assert doubled.buckets == {0: 150, 1: 2, 2: 1, 3: 2, 4: 1, 5: 145}


@pytest.mark.parametrize("linear", [(0, 0, 1), (0, 10, 0), (10, 0, 1), (0, 10_000, 1)])
def test_a_histogram_that_makes_no_sense(hit, linear):
    with trace.Session() as session, pytest.raises(UsageError):
        traced(session, hit).hist("n", linear=linear)


def test_differences_add_up_under_load(hit):
    """Two threads fire while a third looks again and again: no hit is lost between two looks, none counted twice."""
    times, done = 20_011, threading.Event()

    def fire():
        for n in range(times):
            hit(n, n % 5, "t")

    with trace.Session() as session:
        source = traced(session, hit)
        counts, values = source.count("i"), source.hist("n")
        session.start()
        threads = [threading.Thread(target=fire) for _ in range(2)]
        for thread in threads:
            thread.start()
        counted = summed = 0
        while not done.is_set():
            if not any(thread.is_alive() for thread in threads):
                done.set()  # and one last look
            counted += sum(counts.delta().values())
            summed += sum(one.sum for one in values.delta().values())
        total = values.read()[()]
    assert counted == total.count == 2 * times
    assert summed == total.sum == times * (times - 1)
    assert abs(total.percentile(50) - times // 2) <= times / 2 / 32


def test_the_most_frequent_keys(hit):
    with trace.Session() as session:
        counts = traced(session, hit).count("n")
        session.start()
        for n in range(100):
            for _ in range(n % 10):
                hit(n % 10, 0, "")
        assert counts.top(3) == [((9,), 90), ((8,), 80), ((7,), 70)]


def test_the_plan_attaches_nothing(hit):
    with trace.Session() as session:
        session.pair(trace.uprobe("c", "getaddrinfo")).emit()
        traced(session, hit).emit()
        # A program that runs here may have a getaddrinfo of its own, besides libc's.
        plan = [site for site in session.plan() if site.path == str(hit.path) or "/libc." in site.path]
        assert not hit.enabled
    assert [(site.kind, site.name) for site in plan] == [
        ("entry", "getaddrinfo"),
        ("return", "getaddrinfo"),
        ("usdt", "own:sample"),
    ]
    assert all(site.file_offset and not site.pids for site in plan)
    assert plan[2].path == str(hit.path)
