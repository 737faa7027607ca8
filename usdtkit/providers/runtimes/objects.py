"""Objects that a program makes, counted in the kernel by their type.

Input: the tables that `Runtime.objects` fills, some of which are of one type and others keyed by it. Output:
`Allocations` of each type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from usdtkit.records import NamedTuple
from usdtkit.trace import Counts


class Allocations(NamedTuple):
    """How many objects of a type were made, and their bytes together, which are None if the sizes are not known."""

    type: str
    number: int
    bytes: int | None


class ObjectTable(NamedTuple):
    """The tables of one kind of object. `type` is the name of the type, with {0} for the value of the key."""

    type: str
    counts: Counts
    sizes: Counts | None


class Objects:
    """The objects that were made since the session started, or since the last look."""

    def __init__(self, tables: Sequence[ObjectTable]) -> None:
        self._tables = tables

    def delta(self) -> Iterator[Allocations]:
        """The objects that were made since the last call."""
        for table in self._tables:
            sizes = None if table.sizes is None else table.sizes.delta()
            for key, count in table.counts.delta().items():
                if count:
                    yield Allocations(table.type.format(*key), count, None if sizes is None else sizes.get(key, 0))
