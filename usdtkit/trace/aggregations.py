"""Counts, sums and histograms that were summed in the kernel, as Python values.

Input: a session's maps. Output: totals since the session started (`read`), or since the last look (`delta`); `output`
prints them. Nothing is ever reset in the kernel, so no hit falls between two looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from usdtkit.bpf.actions import POWERS_OF_TWO, Logarithmic, Scale
from usdtkit.bpf.statements import TableLayout
from usdtkit.records import dataclass, field, replace

if TYPE_CHECKING:
    from usdtkit.kernel.maps import Map

Key = tuple[Any, ...]
Entry = tuple[int, bytes]
"""An entry in the kernel: the number of its map, and the bytes of its key."""
AnyKey = TypeVar("AnyKey", Key, Entry)
Filled = list[tuple["Map", TableLayout, "Map | None"]]
"""The maps in the kernel that make up one table, one for each source that fills it; how to read each; and the map that
has the number of its interval, where it begins anew in each."""


@dataclass
class Distribution:
    """Values in buckets; `scale.bounds(bucket)` says which values a bucket has."""

    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0
    scale: Scale = field(default_factory=Logarithmic)

    @property
    def count(self) -> int:
        """The number of values."""
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

    def by_powers(self) -> Distribution:
        """The same values in buckets of powers of two, which are few enough to be drawn.

        Buckets of equal width stay as they are.
        """
        if not isinstance(self.scale, Logarithmic):
            return self
        drawn = Distribution(sum=self.sum, scale=POWERS_OF_TWO)
        for bucket, count in self.buckets.items():
            low, _ = self.scale.bounds(bucket)
            power = POWERS_OF_TWO.bucket(-1 if low is None else low)
            drawn.buckets[power] = drawn.buckets.get(power, 0) + count
        return drawn

    def percentile(self, percent: float) -> int:
        """The value that `percent` % of the values do not exceed: the middle of the bucket in which it lies.

        It is exact for values from 0 to 31, and at most 1/32 away from others above 0. With buckets of equal width, it
        is at most half of that width away. It is -1 for values below 0, and of values below or above all buckets of
        equal width it is what lies next to them.
        """
        rank, counted = self.count * percent / 100, 0
        for bucket in sorted(self.buckets):
            counted += self.buckets[bucket]
            if counted >= rank:
                low, high = self.scale.bounds(bucket)
                if low is None:
                    return (high or 0) - 1
                return low if high is None else (low + high) // 2
        return 0


@dataclass(frozen=True)
class Statistics:
    """The number of the values that one key had, their sum, and the smallest and the largest of them."""

    count: int
    sum: int
    min: int
    max: int

    @property
    def average(self) -> float:
        """The mean of all values."""
        return self.sum / self.count

    def __add__(self, other: Statistics) -> Statistics:
        smallest, largest = min(self.min, other.min), max(self.max, other.max)
        return Statistics(self.count + other.count, self.sum + other.sum, smallest, largest)


class Aggregation:
    """A table in the kernel; `keys` are the names of what it is keyed by."""

    def __init__(self, keys: tuple[str, ...], filled: Filled) -> None:
        """`filled` gets the maps of the table when the session starts."""
        self.keys = keys
        self._filled = filled
        self._seen: dict[Key, int] = {}

    def _rows(self) -> Iterator[tuple[TableLayout, Key, bytes]]:
        """Keys, without keys the number of the slot, and what the kernel has there; nothing before the start."""
        for map, table, _ in self._filled:
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
        signed = any(table.signed for _, table, _ in self._filled)
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
        """The keys with the largest counts, in descending order."""
        return sorted(self.read().items(), key=lambda item: (-item[1], repr(item[0])))[:number]

    def _by_key(self, sums: dict[Key, int]) -> dict[Key, int]:
        return dict(sums) if self.keys else {(): sum(sums.values())}


class Sums(Counts):
    """The sum of a value for each combination of keys; `top` gives the largest."""

    def _by_key(self, sums: dict[Key, int]) -> dict[Key, int]:
        return {key: self._as_number(amount) for key, amount in super()._by_key(sums).items()}


class Histogram(Aggregation):
    """The distribution of a value for each combination of keys."""

    def __init__(self, keys: tuple[str, ...], filled: Filled, scale: Scale) -> None:
        super().__init__(keys, filled)
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
            distribution = distributions[tuple(key)]
            if slot == self.scale.buckets:
                distribution.sum = self._as_number(amount)
            elif amount:
                distribution.buckets[slot] = amount
        return dict(distributions)


class StatisticsTable(Aggregation):
    """Count, sum, minimum and maximum of a value for each combination of keys."""

    def __init__(self, keys: tuple[str, ...], filled: Filled) -> None:
        super().__init__(keys, filled)
        self._before: dict[Entry, Statistics] = {}
        self._interval = 0

    def top(self, number: int, by: Literal["count", "sum", "average", "max"] = "sum") -> list[tuple[Key, Statistics]]:
        """The keys with the largest sum, or count, average or value, in descending order."""
        return sorted(self.read().items(), key=lambda item: (-getattr(item[1], by), repr(item[0])))[:number]

    def delta(self) -> dict[Key, Statistics]:
        """As `read`, since the last call of this, or since the start. `min` and `max` count from the start, unless the
        table begins `anew`: then all entries that have a new value count."""
        begun = self._begin_interval()
        now, before = self._entries(), self._before
        new: dict[Key, Statistics] = {}
        for entry, row in now.items():
            old = before.get(entry)
            grown = row if old is None else replace(row, count=row.count - old.count, sum=row.sum - old.sum)
            if grown.count:
                _add(new, self._key(entry), grown)
        # Those of the interval that has just ended may still grow: a program may have asked for its number before.
        self._before = {entry: row for entry, row in now.items() if not self._is_before(entry, begun - 1)}
        for number, key in now.keys() - self._before.keys():
            del self._filled[number][0][key]
        return new

    def read(self) -> dict[Key, Statistics]:
        """Statistics by key; without keys, one entry with the key () once there was a value.

        Of a table that begins `anew`, it has the last two intervals: older entries have been deleted.
        """
        total: dict[Key, Statistics] = {}
        for entry, row in self._entries().items():
            _add(total, self._key(entry), row)
        return total

    def _entries(self) -> dict[Entry, Statistics]:
        """What the kernel has in each entry that has values, of all CPUs together."""
        entries: dict[Entry, Statistics] = {}
        for number, (map, table, _) in enumerate(self._filled):
            assert table.values is not None
            size = table.values.size
            for key, row in map.items():
                for start in range(0, len(row), size):  # of each CPU
                    part = Statistics(*table.values.decode(row[start : start + size]))
                    if part.count:
                        _add(entries, (number, key), part)
        return entries

    def _key(self, entry: Entry) -> Key:
        number, key = entry
        _, table, interval = self._filled[number]
        if not self.keys:
            return ()
        decoded = table.keys.decode(key)
        return decoded if interval is None else decoded[:-1]

    def _begin_interval(self) -> int:
        """Let the kernel make new entries from now on, where the table begins anew; the number of the interval."""
        self._interval += 1
        for _, _, interval in self._filled:
            if interval is not None:
                interval[bytes(4)] = self._interval.to_bytes(8, "little")
        return self._interval

    def _is_before(self, entry: Entry, interval: int) -> bool:
        """Whether an entry is of an earlier interval; those of tables that do not begin anew are not."""
        number, key = entry
        return self._filled[number][2] is not None and int.from_bytes(key[-8:], "little") < interval


def _add(totals: dict[AnyKey, Statistics], key: AnyKey, row: Statistics) -> None:
    totals[key] = totals[key] + row if key in totals else row
