"""The tables that a source, or several sources together, fill in the kernel.

Input: names and expressions of keys and values. Output: `Counts`, `Sums`, `Histogram` and `StatisticsTable`, which
`session` binds to maps of the kernel when it starts. `Source` and `Sources` inherit from `Summarising`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Action, Count, Hist, Linear, Log2, Stats
from usdtkit.trace.aggregations import Aggregation, Counts, Histogram, StatisticsTable, Sums
from usdtkit.trace.events import UNITS

if TYPE_CHECKING:
    from usdtkit.trace.sources import Source

AnyTable = TypeVar("AnyTable", bound=Aggregation)


class Summarising:
    """Hits that can be summed up in the kernel."""

    def _members(self) -> Sequence[Source]:
        raise NotImplementedError

    def count(self, *names: str, **keys: ex.Expression) -> Counts:
        """Count hits in the kernel, by the values of the keys."""
        return self._fill(Counts, names, keys, Count)

    def sum(self, value: ex.Expression | str, *names: str, **keys: ex.Expression) -> Sums:
        """Sum up `value` in the kernel, by the values of the keys."""
        return self._fill(Sums, names, keys, lambda number, own: Count(number, own, as_value(value)))

    def hist(
        self,
        value: ex.Expression | str,
        *names: str,
        linear: tuple[int, int, int] | None = None,
        **keys: ex.Expression,
    ) -> Histogram:
        """Count `value` in the kernel in buckets, by the values of the keys.

        The buckets are powers of two, or with `linear`, (low, high, step), of equal width.
        """
        scale = Linear(*linear) if linear else Log2()
        return self._fill(
            lambda labels: Histogram(labels, scale),
            *(names, keys),
            lambda number, own: Hist(number, as_value(value), own, scale),
        )

    def stats(self, value: ex.Expression | str, *names: str, **keys: ex.Expression) -> StatisticsTable:
        """Keep count, sum, least and greatest of `value` in the kernel, by the values of the keys."""
        return self._fill(StatisticsTable, names, keys, lambda number, own: Stats(number, as_value(value), own))

    def _fill(
        self,
        make: Callable[[tuple[str, ...]], AnyTable],
        names: Sequence[str],
        keys: Mapping[str, ex.Expression],
        action: Callable[[int, dict[str, ex.Expression]], Action],
    ) -> AnyTable:
        """One table for all members. Each fills a map of its own in the kernel, because one name may be a string of
        one length here and of another there; the table adds the maps up when it is read."""
        members = self._members()
        expressions = [member._named(names, keys) for member in members]
        labels = tuple(expressions[0]) if expressions else (*(UNITS.get(name, name) for name in names), *keys)
        table = make(labels)
        for member, own in zip(members, expressions, strict=True):
            member._act(action(member._session.add_aggregation(table), own))
        return table


def as_value(value: ex.Expression | str) -> ex.Expression:
    """A name as the expression that it stands for."""
    return ex.Name(value) if isinstance(value, str) else value
