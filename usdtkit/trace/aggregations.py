"""Counts and histograms that were summed in the kernel, as Python values.

Input: a session's maps. Output: totals since the session started; `output` prints them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from usdtkit.bpf.maps import Map
from usdtkit.bpf.program import HISTOGRAM_SUM, Table

Key = tuple[Any, ...]


@dataclass
class Distribution:
    """Values in buckets of powers of two: bucket b counts the values v with v.bit_length() == b; 64, negative ones."""

    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    @property
    def average(self) -> float:
        """The mean of all values; 0 where there are none."""
        return self.sum / self.count if self.count else 0.0

    def add(self, slot: int, amount: int) -> None:
        if slot == HISTOGRAM_SUM:
            self.sum += amount
        elif amount:
            self.buckets[slot] = self.buckets.get(slot, 0) + amount


class Aggregation:
    """A table in the kernel; `keys` are the names of what it is keyed by."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._read: Callable[[], dict[Key, int]] | None = None
        self._signed = False

    def bind(self, values: Map, table: Table) -> None:
        """Called by the session when the table exists."""
        slots = not table.keys.fields  # without keys it is an array of per-CPU sums

        def read() -> dict[Key, int]:
            entries: dict[Key, int] = defaultdict(int)
            for key, value in values.items():
                # Strings that differ only behind what is read of them are two keys in the kernel and one here.
                entries[(int.from_bytes(key, "little"),) if slots else table.keys.decode(key)] += _total(value)
            return dict(entries)

        self._read = read
        self._signed = table.signed

    def entries(self) -> dict[Key, int]:
        """The raw entries; empty before the session starts."""
        return {} if self._read is None else self._read()


class Counts(Aggregation):
    """How often each combination of keys was seen."""

    def read(self) -> dict[Key, int]:
        """Counts by key; without keys, one entry with the key ()."""
        entries = self.entries()
        return entries if self.keys else {(): sum(entries.values())}


class Histogram(Aggregation):
    """The distribution of a value for each combination of keys."""

    def read(self) -> dict[Key, Distribution]:
        """Distributions by key; without keys, one entry with the key ()."""
        distributions: dict[Key, Distribution] = defaultdict(Distribution)
        if not self.keys:
            distributions[()] = Distribution()
        for (*key, slot), amount in self.entries().items():
            if self._signed and slot == HISTOGRAM_SUM:
                amount = (amount + 2**63) % 2**64 - 2**63
            distributions[tuple(key)].add(slot, amount)
        return dict(distributions)


def _total(values: bytes) -> int:
    return sum(memoryview(values).cast("Q"))
