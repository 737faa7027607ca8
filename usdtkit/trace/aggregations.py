"""Counts, sums and histograms that were summed in the kernel, as Python values.

Input: a session's maps. Output: totals since the session started (`read`), or since the last look (`delta`); `output`
prints them. Nothing is ever reset in the kernel, so no hit falls between two looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from usdtkit.bpf.actions import Log2, Scale
from usdtkit.bpf.statements import Table
from usdtkit.kernel.maps import Map
from usdtkit.records import dataclass, field, replace

Key = tuple[Any, ...]


@dataclass
class Distribution:
    """Values in buckets; `scale.bounds(bucket)` says which values a bucket has."""

    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0
    scale: Scale = field(default_factory=Log2)

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    @property
    def average(self) -> float:
        """The mean of all values; 0 where there are none."""
        return self.sum / self.count if self.count else 0.0

    def add(self, value: int) -> None:
        """One more value, which came as an event and was not summed in the kernel."""
        bucket = self.scale.bucket(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.sum += value

    def __add__(self, other: Distribution) -> Distribution:
        return Distribution.total((self, other))

    @staticmethod
    def total(parts: Iterable[Distribution]) -> Distribution:
        """The values of several distributions of one scale, as one."""
        whole = Distribution()
        for part in parts:
            whole.scale = part.scale
            whole.sum += part.sum
            for bucket, count in part.buckets.items():
                whole.buckets[bucket] = whole.buckets.get(bucket, 0) + count
        return whole

    def percentile(self, percent: float) -> int:
        """An upper bound of `percent` % of the values: the end of the bucket that the last of them lies in."""
        wanted, seen = self.count * percent / 100, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                low, high = self.scale.bounds(bucket)
                return high if high is not None else low or 0
        return 0


@dataclass(frozen=True)
class Statistics:
    """Of the values that one key had."""

    count: int
    sum: int
    least: int
    greatest: int

    @property
    def average(self) -> float:
        """The mean of all values."""
        return self.sum / self.count

    def __add__(self, other: Statistics) -> Statistics:
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        return Statistics(self.count + other.count, self.sum + other.sum, least, greatest)


class Aggregation:
    """A table in the kernel; `keys` are the names of what it is keyed by."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._maps: list[tuple[Map, Table]] = []  # one for each source that fills the table
        self._seen: dict[Key, int] = {}

    def bind(self, values: Map, table: Table) -> None:
        """Called by the session when a map of the table exists."""
        self._maps.append((values, table))

    def _rows(self) -> Iterator[tuple[Table, Key, bytes]]:
        """Keys, without keys the number of the slot, and what the kernel has there; nothing before the start."""
        for map, table in self._maps:
            slots = not table.keys.fields
            for key, value in map.items():
                yield table, ((int.from_bytes(key, "little"),) if slots else table.keys.decode(key)), value

    def _sums(self) -> dict[Key, int]:
        # Strings that differ only behind what is read of them are two keys in the kernel and one here.
        sums: dict[Key, int] = defaultdict(int)
        for _, key, value in self._rows():
            sums[key] += sum(memoryview(value).cast("Q"))
        return sums

    def _as_number(self, amount: int) -> int:
        """A sum of 64-bit values, with the sign that they have."""
        signed = any(table.signed for _, table in self._maps)
        return (amount + 2**63) % 2**64 - 2**63 if signed else amount % 2**64

    def _new_sums(self) -> dict[Key, int]:
        """What has come since the last time."""
        now = self._sums()
        new = {key: amount - self._seen.get(key, 0) for key, amount in now.items()}
        self._seen = now
        return {key: amount for key, amount in new.items() if amount}


class Counts(Aggregation):
    """How often each combination of keys was seen."""

    def read(self) -> dict[Key, int]:
        """Counts by key; without keys, one entry with the key ()."""
        return self._by_key(self._sums())

    def delta(self) -> dict[Key, int]:
        """As `read`, since the last call of this (or since the start): the deltas add up to the total."""
        return self._by_key(self._new_sums())

    def top(self, number: int) -> list[tuple[Key, int]]:
        """The keys with most, the first first."""
        return sorted(self.read().items(), key=lambda item: (-item[1], repr(item[0])))[:number]

    def _by_key(self, sums: dict[Key, int]) -> dict[Key, int]:
        return dict(sums) if self.keys else {(): sum(sums.values())}


class Sums(Counts):
    """The sum of a value for each combination of keys; `top` gives the greatest."""

    def _by_key(self, sums: dict[Key, int]) -> dict[Key, int]:
        return {key: self._as_number(amount) for key, amount in super()._by_key(sums).items()}


class Histogram(Aggregation):
    """The distribution of a value for each combination of keys."""

    def __init__(self, keys: tuple[str, ...], scale: Scale) -> None:
        super().__init__(keys)
        self.scale = scale

    def read(self) -> dict[Key, Distribution]:
        """Distributions by key; without keys, one entry with the key ()."""
        return self._by_key(self._sums())

    def delta(self) -> dict[Key, Distribution]:
        """As `read`, since the last call of this (or since the start): the deltas add up to the total."""
        return self._by_key(self._new_sums())

    def _by_key(self, sums: dict[Key, int]) -> dict[Key, Distribution]:
        distributions: dict[Key, Distribution] = defaultdict(lambda: Distribution(scale=self.scale))
        if not self.keys:
            distributions[()] = Distribution(scale=self.scale)
        for (*key, slot), amount in sums.items():
            one = distributions[tuple(key)]
            if slot == self.scale.buckets:
                one.sum = self._as_number(amount)
            elif amount:
                one.buckets[slot] = amount
        return dict(distributions)


class StatisticsTable(Aggregation):
    """Count, sum, least and greatest of a value for each combination of keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(keys)
        self._before: dict[Key, Statistics] = {}

    def top(
        self, number: int, by: Literal["count", "sum", "average", "greatest"] = "sum"
    ) -> list[tuple[Key, Statistics]]:
        """The keys with the greatest sum, or count, average or value; the first first."""
        return sorted(self.read().items(), key=lambda item: (-getattr(item[1], by), repr(item[0])))[:number]

    def delta(self) -> dict[Key, Statistics]:
        """As `read`, since the last call of this (or since the start); but least and greatest are of all the time."""
        now, before = self.read(), self._before
        self._before = now
        fresh = {
            key: replace(one, count=one.count - old.count, sum=one.sum - old.sum) if (old := before.get(key)) else one
            for key, one in now.items()
        }
        return {key: one for key, one in fresh.items() if one.count}

    def read(self) -> dict[Key, Statistics]:
        """Statistics by key; without keys, one entry with the key () once there was a value."""
        found: dict[Key, Statistics] = {}
        for table, key, row in self._rows():
            own = key if self.keys else ()
            assert table.values is not None
            size = table.values.size
            for at in range(0, len(row), size):
                one = Statistics(*table.values.decode(row[at : at + size]))
                if one.count:
                    found[own] = found[own] + one if own in found else one
        return found
