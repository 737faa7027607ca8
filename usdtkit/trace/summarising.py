"""The tables that a source, or several sources together, fill in the kernel.

Input: names and expressions of keys and values. Output: `Counts`, `Sums`, `Histogram` and `StatisticsTable`, which
`running` connects with maps of the kernel. `Source` and `Sources` inherit from `Summarising`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Action, Count, Hist, Linear, Logarithmic, Stats
from usdtkit.trace.aggregations import Aggregation, Counts, Filled, Histogram, StatisticsTable, Sums
from usdtkit.trace.blueprint import Blueprint
from usdtkit.trace.fields import UNITS, as_value, named

AnyTable = TypeVar("AnyTable", bound=Aggregation)


class Member(Protocol):
    """What one source is for a table: it names its values, acts at its hits, and adds tables to its program."""

    _blueprint: Blueprint

    def _names(self) -> set[str]: ...

    def _act(self, action: Action, *, everywhere: bool = False) -> None: ...


class Summarising:
    """Hits that can be summed up in the kernel."""

    def _members(self) -> Sequence[Member]:
        raise NotImplementedError

    def count(self, *names: str, **keys: ex.Expression) -> Counts:
        """Count hits in the kernel, by the values of the keys."""
        return self._fill(Counts, names, keys, Count)

    def sum(self, value: ex.Expression | str, *names: str, **keys: ex.Expression) -> Sums:
        """Sum up `value` in the kernel, by the values of the keys."""
        return self._fill(Sums, names, keys, lambda number, keyed: Count(number, keyed, as_value(value)))

    def hist(
        self,
        value: ex.Expression | str,
        *names: str,
        linear: tuple[int, int, int] | None = None,
        **keys: ex.Expression,
    ) -> Histogram:
        """Count `value` in the kernel in buckets, by the values of the keys.

        There are 16 buckets for each power of two, or with `linear`, (low, high, step), buckets of equal width.
        """
        scale = Linear(*linear) if linear else Logarithmic()
        return self._fill(
            lambda labels, filled: Histogram(labels, filled, scale),
            *(names, keys),
            lambda number, keyed: Hist(number, as_value(value), keyed, scale),
        )

    def stats(
        self, value: ex.Expression | str, *names: str, anew: bool = False, **keys: ex.Expression
    ) -> StatisticsTable:
        """Keep count, sum, minimum and maximum of `value` in the kernel, by the values of the keys.

        With `anew`, each `delta` of the table begins anew: minimum and maximum are then those since the last one. The
        table holds only the last two intervals, so it needs room only for their keys, and `read` has nothing else.
        """
        return self._fill(
            StatisticsTable, names, keys, lambda number, keyed: Stats(number, as_value(value), keyed, anew)
        )

    def count_unseen(self, what: str, why: str) -> None:
        """Count hits in the kernel that the trace cannot show, so that its account says so.

        `what` is one of them, as a singular noun ("prepared execution"), and `why` a part of a sentence that fits one
        and many of them ("mariadbd has no symbol …"). Where there were any, they are in `Summary.unseen` and in the
        last line of a tool.
        """
        counts = self.count()
        for blueprint in {member._blueprint for member in self._members()}:
            blueprint.unseen.add(what, why, lambda: counts.read()[()])

    def _fill(
        self,
        make: Callable[[tuple[str, ...], Filled], AnyTable],
        names: Sequence[str],
        keys: Mapping[str, ex.Expression],
        action: Callable[[int, dict[str, ex.Expression]], Action],
    ) -> AnyTable:
        """One table for all members. Each fills a map of its own in the kernel, because one name may be a string of
        one length here and of another there; the table adds the maps up when it is read."""
        members = self._members()
        expressions = [named(names, keys, member._names()) for member in members]
        labels = tuple(expressions[0]) if expressions else (*(UNITS.get(name, name) for name in names), *keys)
        filled: Filled = []
        for member, keyed in zip(members, expressions, strict=True):
            member._act(action(member._blueprint.add_table(filled), keyed))
        return make(labels, filled)
