"""A distribution → the histogram that people know from DTrace and bcc.

Input: `trace.aggregations.Distribution`. Output: lines of text, one for each power of two from the smallest value to
the largest, or for each bucket of equal width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from usdtkit.output.text import printable, show_argument
from usdtkit.results.blocks import Row
from usdtkit.trace.aggregations import Distribution

BAR = 40
UNITS = (("s", 10**9), ("ms", 10**6), ("us", 10**3))


def duration(ns: float) -> str:
    """Nanoseconds in a readable unit, to three digits: "1.02 ms"."""
    for name, size in UNITS:
        if ns >= size:
            value = ns / size
            return f"{value:.0f} {name}" if value >= 100 else f"{value:.3g} {name}"
    return f"{ns:.0f} ns"


def render(distribution: Distribution, label: str, bound: Callable[[int], str] = duration) -> Iterator[str]:
    """Lines of a histogram: range (its lower bound belongs to it, and the upper does not), count, and bar."""
    if not distribution.buckets:
        yield f"{label:>24} : no values"
        return
    distribution = distribution.by_powers()
    most = max(distribution.buckets.values())
    yield f"{label:>24} : {'count':<9}distribution"
    for bucket in range(min(distribution.buckets), max(distribution.buckets) + 1):
        low, high = ("" if edge is None else bound(edge) for edge in distribution.scale.bounds(bucket))
        count = distribution.buckets.get(bucket, 0)
        bar = "*" * (count * BAR // most)
        yield f"{low:>11} .. {high:<9}: {count:<8} |{bar:<{BAR}}|"


def labels_text(labels: Row) -> list[str]:
    """Labels as text, such as `fd=3`; of an object, its parts."""
    parts: dict[str, Any] = {}
    for name, value in labels.items():
        parts |= value if isinstance(value, Mapping) else {name: value}
    return [f"{printable(name)}={show_argument(value)}" for name, value in parts.items()]


def statistics(distribution: Distribution, percentiles: Sequence[int], bound: Callable[[int], str] = duration) -> str:
    """A line with the number of values, their average, their sum and percentiles."""
    below = [f"p{percent} {bound(distribution.percentile(percent))}" for percent in percentiles]
    average = bound(round(distribution.average))
    return ", ".join([f"count {distribution.count}", f"average {average}", f"total {bound(distribution.sum)}", *below])
