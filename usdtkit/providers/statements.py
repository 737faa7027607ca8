"""Latencies of database queries, summed up by the statement, its kind, or the client that sent it.

Input: queries such as `mysql.queries` and `postgresql.queries`, which know `latency` and `query`. Output: groups of
latencies by label. The kernel sums up (`summed`), and its entries are joined here: two statements are the same only
once their literals are gone, and the scanners of `alike` leave nearly all of them out. Where a label is known to Python
alone, the queries send events (`LatencyGroups`). `sql` normalises the text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from usdtkit.providers import alike
from usdtkit.providers.sql import Dialect, kind, shown
from usdtkit.records import dataclass, field
from usdtkit.trace import OTHER_TEXTS, Distribution, Histogram, Source, Sources, Statistics, StatisticsTable, interned

QUERY_SIZE = 256
"""How many bytes of a statement are read unless a caller says otherwise."""
MAX_LABELS = 10_000
OTHERS = OTHER_TEXTS
Label = Literal["statement", "kind", "pid", "user", "database"]


@dataclass
class LatencyGroup:
    """The latencies of the queries that have one label, in nanoseconds: their number, sum, the longest, and, unless
    they are grouped by statement, their distribution."""

    label: str
    count: int = 0
    total_ns: int = 0
    max_ns: int = 0
    distribution: Distribution = field(default_factory=Distribution)

    def row(self) -> dict[str, Any]:
        """The values as a row of a table, with the label as `statement`."""
        times = {"total_ns": self.total_ns, "average_ns": round(self.total_ns / self.count), "max_ns": self.max_ns}
        return {"count": self.count, **times, "statement": self.label}


class LatencyGroups:
    """Latencies of queries since the last `flush`, grouped by the label that `label` returns for each event.

    Clients can send any number of different statements. Once there are MAX_LABELS groups, queries with a new label are
    added to one group that is called OTHERS, so that memory stays bounded.
    """

    def __init__(self, label: Callable[[Any], str]) -> None:
        self._label = label
        self._groups: dict[str, LatencyGroup] = {}

    def add(self, event: Any) -> None:
        """Add one query: an event that has `latency_ns`, and what `label` needs."""
        group = self._group(self._label(event))
        group.count += 1
        group.total_ns += event.latency_ns
        group.max_ns = max(group.max_ns, event.latency_ns)
        group.distribution.add(event.latency_ns)

    def flush(self) -> list[LatencyGroup]:
        """All groups since the last call, beginning with the one that took the most time."""
        groups, self._groups = self._groups, {}
        return sorted(groups.values(), key=lambda group: (-group.total_ns, group.label))

    def _group(self, label: str) -> LatencyGroup:
        label = bounded(label, self._groups)
        return self._groups.setdefault(label, LatencyGroup(label))


class SummedGroups(LatencyGroups):
    """Latencies that the kernel has summed up in `table` by a key, from which `label` makes the label; no events."""

    def __init__(self, table: Histogram | StatisticsTable, label: Callable[[Any], str]) -> None:
        super().__init__(label)
        self._table = table

    def flush(self) -> list[LatencyGroup]:
        """As `LatencyGroups.flush`."""
        new: Mapping[Any, Distribution | Statistics] = self._table.delta()
        for (key,), part in new.items():
            group = self._group(self._label(key))
            group.count += part.count
            group.total_ns += part.sum
            if isinstance(part, Statistics):
                group.max_ns = max(group.max_ns, part.max)
            else:
                group.distribution += part
        return super().flush()


def bounded(label: str, known: Collection[str]) -> str:
    """The label, or OTHERS if it is new and `known` already holds MAX_LABELS of them."""
    return label if label in known or len(known) < MAX_LABELS else OTHERS


def summed(queries: Sources[Source], by: str, dialect: Dialect, *, raw: bool = False) -> LatencyGroups:
    """Let the kernel sum up latencies by statement, by kind, or by any text or number that the queries know as `by`.

    A "statement" is shown without its literals, or with `raw` as it was sent. Its "kind" is its first word.
    """
    if by == "statement":
        text = interned("query") if raw else interned("query", alike.same_shape(dialect))
        return SummedGroups(
            queries.stats("latency", anew=True, query=text),
            lambda query: OTHERS if query is OTHER_TEXTS else shown(query, dialect, raw=raw) or "?",
        )
    if by == "kind":
        return SummedGroups(
            queries.hist("latency", kind=interned("query", alike.same_kind(dialect))),
            lambda query: OTHERS if query is OTHER_TEXTS else kind(shown(query, dialect) or ""),
        )
    return SummedGroups(queries.hist("latency", by), lambda key: "?" if key in (None, "") else str(key))
