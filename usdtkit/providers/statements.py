"""Latencies of database queries, summed up by the statement, its kind, or the client that sent it.

Input: queries such as `mysql.queries` and `postgresql.queries`, which know `latency` and `query`. Output: groups of
latencies by label. The kernel sums up (`summed`), and its entries are joined here: two statements are the same only
once their literals are gone, and the scanners of `alike` leave nearly all of them out. `sql` normalises the text.
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
    """Latencies that the kernel has summed up in `table` by a key, from which `label` makes the label.

    Clients can send any number of different statements. Once there are MAX_LABELS groups, queries with a new label are
    added to one group that is called OTHERS.
    """

    def __init__(self, table: Histogram | StatisticsTable, label: Callable[[Any], str]) -> None:
        self._table, self._label = table, label

    def flush(self) -> list[LatencyGroup]:
        """All groups since the last call, beginning with the one that took the most time."""
        groups: dict[str, LatencyGroup] = {}
        new: Mapping[Any, Distribution | Statistics] = self._table.delta()
        for (key,), part in new.items():
            label = bounded(self._label(key), groups)
            group = groups.setdefault(label, LatencyGroup(label))
            group.count += part.count
            group.total_ns += part.sum
            if isinstance(part, Statistics):
                group.max_ns = max(group.max_ns, part.max)
            else:
                group.distribution += part
        return sorted(groups.values(), key=lambda group: (-group.total_ns, group.label))


def bounded(label: str, known: Collection[str]) -> str:
    """The label, or OTHERS if it is new and `known` already holds MAX_LABELS of them."""
    return label if label in known or len(known) < MAX_LABELS else OTHERS


def summed(queries: Sources[Source], by: str, dialect: Dialect, *, raw: bool = False) -> LatencyGroups:
    """Let the kernel sum up latencies by statement, by kind, or by any text or number that the queries know as `by`.

    A "statement" is shown without its literals, or with `raw` as it was sent. Its "kind" is its first word.
    """
    if by == "statement":
        text = interned("query") if raw else interned("query", alike.same_shape(dialect))
        return LatencyGroups(
            queries.stats("latency", anew=True, query=text),
            lambda query: OTHERS if query is OTHER_TEXTS else shown(query, dialect, raw=raw) or "?",
        )
    if by == "kind":
        return LatencyGroups(
            queries.hist("latency", kind=interned("query", alike.same_kind(dialect))),
            lambda query: OTHERS if query is OTHER_TEXTS else kind(shown(query, dialect) or ""),
        )
    return LatencyGroups(queries.hist("latency", by), lambda key: "?" if key in (None, "") else str(key))
