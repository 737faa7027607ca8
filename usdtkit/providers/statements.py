"""Latencies of database queries, summed up by the statement, its kind, or the client that sent it.

Input: events with the fields `query` and `latency_ns`, such as `mysql.queries` and `postgresql.queries` send. Output:
groups of latencies by label. These are summed up here and not in the kernel, because two statements are the same only
once their literals are gone. `sql` normalises the text; `mysql` and `postgresql` know whose a query is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

from usdtkit.providers.sql import Dialect, kind, shown
from usdtkit.records import dataclass, field
from usdtkit.trace import Distribution

QUERY_SIZE = 256
"""How many bytes of a statement are read unless a caller says otherwise."""
MAX_LABELS = 10_000
OTHERS = "(all others)"
Label = Literal["statement", "kind", "pid", "user", "database"]


@dataclass
class LatencyGroup:
    """The latencies of the queries that have one label, and the longest of them, in nanoseconds."""

    label: str
    distribution: Distribution = field(default_factory=Distribution)
    max_ns: int = 0

    def row(self) -> dict[str, Any]:
        """The values as a row of a table, with the label as `statement`."""
        latencies = self.distribution
        times = {"total_ns": latencies.sum, "average_ns": round(latencies.average), "max_ns": self.max_ns}
        return {"count": latencies.count, **times, "statement": self.label}


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
        label = bounded(self._label(event), self._groups)
        group = self._groups.setdefault(label, LatencyGroup(label))
        group.distribution.add(event.latency_ns)
        group.max_ns = max(group.max_ns, event.latency_ns)

    def flush(self) -> list[LatencyGroup]:
        """All groups since the last call, beginning with the one that took the most time."""
        groups, self._groups = self._groups, {}
        return sorted(groups.values(), key=lambda group: (-group.distribution.sum, group.label))


def bounded(label: str, known: Collection[str]) -> str:
    """The label, or OTHERS if it is new and `known` already holds MAX_LABELS of them."""
    return label if label in known or len(known) < MAX_LABELS else OTHERS


def labeller(by: Literal["statement", "kind", "pid"], dialect: Dialect, *, raw: bool) -> Callable[[Any], str]:
    """Return a function from an event to its label, for the groups that every server's queries have.

    A "statement" is shown without its literals, or with `raw` as it was sent. Its "kind" is its first word.
    """
    if by == "statement":
        return lambda event: shown(event.query, dialect, raw=raw) or "?"
    if by == "kind":
        return lambda event: kind(shown(event.query, dialect) or "")
    return lambda event: str(event.pid)
