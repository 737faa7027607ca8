"""Distributions that are summed up in user space fall into the same buckets as the kernel's."""

import math
import random

import pytest

from usdtkit.bpf.actions import POWERS_OF_TWO, Linear, Logarithmic
from usdtkit.trace import Distribution

EDGES = [edge + step for edge in (2**bits for bits in range(64)) for step in (-1, 0, 1)]


@pytest.mark.parametrize("scale", [Logarithmic(), POWERS_OF_TWO, Logarithmic(2), Linear(-10, 20, 7)])
@pytest.mark.parametrize("values", [(-(2**63), -(2**40), -11, -10, -1), range(100), EDGES, (2**64 - 1,)])
def test_a_value_lies_within_the_bounds_of_its_bucket(scale, values):
    for value in values:
        bucket = scale.bucket(value)
        low, high = scale.bounds(bucket)
        assert 0 <= bucket < scale.buckets
        assert (low is None or low <= value) and (high is None or value < high)


@pytest.mark.parametrize("bits", range(5))
def test_logarithmic_buckets_follow_one_another_and_are_narrow(bits):
    scale = Logarithmic(bits)
    assert scale.bounds(0) == (None, 0)
    for bucket in range(1, scale.buckets):
        low, high = scale.bounds(bucket)
        assert low == scale.bounds(bucket - 1)[1]
        assert high - low == 1 or (high - low) << bits <= low
    assert high == 2**64


@pytest.mark.parametrize(
    "values",
    [
        [random.Random(seed).randrange(2 ** random.Random(seed).randrange(1, 64)) for seed in range(997)],
        [round(random.Random(seed).lognormvariate(11, 1.5)) for seed in range(997)],
        [100_000] * 990 + [17_000_000] * 7,
        range(32),
        [42],
    ],
)
def test_percentiles_are_those_of_the_values_within_their_bound(values):
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    ordered = sorted(values)
    for percent in (0.1, 1, 25, 50, 75, 90, 95, 99, 99.9, 100):
        exact = ordered[max(math.ceil(percent * len(ordered) / 100), 1) - 1]
        assert abs(distribution.percentile(percent) - exact) <= exact / 32
        assert exact >= 32 or distribution.percentile(percent) == exact


def test_percentiles_of_what_lies_outside_the_buckets():
    below, steps = Distribution(), Distribution(scale=Linear(100, 200, 10))
    for value in (-5, -(2**40), 7):
        below.add(value)
    assert [below.percentile(percent) for percent in (50, 100)] == [-1, 7]
    for value in (3, 99, 104, 155, 200, 10**9):
        steps.add(value)
    assert [steps.percentile(percent) for percent in (20, 50, 60, 99)] == [99, 105, 155, 200]
    assert Distribution().percentile(50) == 0


def test_a_drawing_has_the_same_values_by_powers_of_two():
    values, distribution, powers = (
        [-3, 0, 1, 17, 31, 32, 997, 1023, 1024],
        Distribution(),
        Distribution(scale=POWERS_OF_TWO),
    )
    for value in values:
        distribution.add(value)
        powers.add(value)
    assert distribution.by_powers() == powers
    assert [powers.scale.bounds(bucket) for bucket in powers.buckets] == [
        *((None, 0), (0, 1), (1, 2), (16, 32), (32, 64), (512, 1024), (1024, 2048)),
    ]
    linear = Distribution({1: 2}, scale=Linear(0, 10, 5))
    assert linear.by_powers() is linear


def test_adding_values_and_distributions():
    first, second = Distribution(), Distribution()
    for value in (3, 5, 997):
        first.add(value)
    second.add(4)
    total = Distribution.total([first, second, Distribution()])
    assert (total.count, total.sum, total.average) == (4, 1009, 252.25)
    assert total.buckets == {4: 1, 5: 1, 6: 1, Logarithmic().bucket(997): 1}
    assert first.count == 3
