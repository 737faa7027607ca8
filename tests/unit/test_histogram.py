"""Distributions as lines of text."""

import pytest

from usdtkit.output.histogram import BAR, duration, render
from usdtkit.trace.aggregations import Distribution


def of(counts):
    """The distribution of so many of each value."""
    scale = Distribution().scale
    return Distribution({scale.bucket(value): count for value, count in counts.items()})


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1 us"),
        (1024, "1.02 us"),
        (131_072, "131 us"),
        (1_048_576, "1.05 ms"),
        (2**30, "1.07 s"),
        (2**40, "1100 s"),
    ],
)
def test_durations(ns, text):
    assert duration(ns) == text


def test_every_bucket_between_the_first_and_the_last():
    lines = list(render(of({512: 40, 1023: 57, 2048: 1}), "latency"))
    assert len(lines) == 4
    assert [line.split(":")[1].split()[0] for line in lines] == ["count", "97", "0", "1"]
    assert lines[1].count("*") == BAR
    assert [line.count("*") for line in lines[2:]] == [0, 0]
    assert "512 ns .. 1.02 us" in lines[1]
    assert len({line.rindex("|") for line in lines[1:]}) == 1  # the bars stand under each other


def test_bars_are_in_proportion():
    lines = list(render(of({1: 100, 2: 50, 4: 25}), "latency"))[1:]
    assert [line.count("*") for line in lines] == [BAR, BAR // 2, BAR // 4]


def test_zero_has_a_bucket_of_its_own():
    assert "0 ns .. 1 ns" in next(line for line in render(of({0: 1}), "latency") if "*" in line)


def test_values_below_zero_are_one_line():
    assert [line.split(":")[0].split() for line in render(of({-7: 2, 1: 1}), "n", bound=str)][1:] == [
        ["..", "0"],
        ["0", "..", "1"],
        ["1", "..", "2"],
    ]


def test_counts_can_have_another_unit():
    assert " 4 .. 8 " in list(render(of({4: 1}), "bytes", bound=str))[1]


def test_nothing_to_show():
    assert [line.strip() for line in render(Distribution(), "latency")] == ["latency : no values"]
