"""Distributions that are summed up in user space fall into the same buckets as the kernel's."""

import pytest

from usdtkit.bpf.actions import Linear, Log2
from usdtkit.trace import Distribution


@pytest.mark.parametrize("scale", [Log2(), Linear(-10, 20, 7)])
@pytest.mark.parametrize("value", [-(2**40), -11, -10, -1, 0, 1, 2, 3, 4, 19, 20, 2**40])
def test_a_value_lies_within_the_bounds_of_its_bucket(scale, value):
    low, high = scale.bounds(scale.bucket(value))
    if value < 0 and isinstance(scale, Log2):
        assert scale.bucket(value) == scale.buckets - 1  # its last one: as unsigned numbers they are the largest
    else:
        assert (low is None or low <= value) and (high is None or value < high)


def test_adding_values_and_distributions():
    first, second = Distribution(), Distribution()
    for value in (3, 5, 997):
        first.add(value)
    second.add(4)
    total = Distribution.total([first, second, Distribution()])
    assert (total.count, total.sum, total.average) == (4, 1009, 252.25)
    assert total.buckets == {2: 1, 3: 2, 10: 1}
    assert first.count == 3
