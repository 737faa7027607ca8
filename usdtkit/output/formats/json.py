"""JSON Lines: a header object, an object for each row with units in the names, and the account as the last object.

Input: results. Output: lines of ASCII, one for each object. `usdtkit schema NAME` prints their JSON Schema.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from usdtkit.output.sink import Sink, buckets, event_time, iso_time
from usdtkit.output.text import is_cut, jsonable
from usdtkit.results.account import Account
from usdtkit.results.blocks import Histogram, Row
from usdtkit.results.columns import PERCENTS, Column, Schema


class JsonSink(Sink):
    """Writes one object on each line, and flushes each line."""

    shows_account = True
    _stacks: tuple[Column, ...] = ()
    _hidden: frozenset[str] = frozenset()

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        self._stacks = tuple(schema.of_type("stack"))
        self._hidden = frozenset(column.name for column in schema.columns if column.table_only)
        self._object({"schema": schema.title, "time": iso_time(time.time())})

    def row(self, row: Row) -> None:
        self._object(self.plain(row))

    def histogram(self, histogram: Histogram) -> None:
        distribution = histogram.distribution
        values = self.stamped({**histogram.labels, "value": histogram.value})
        totals: dict[str, Any] = {"count": distribution.count, "sum": distribution.sum}
        totals |= {f"p{percent}": distribution.percentile(percent) for percent in PERCENTS}
        self._object({**self.plain(values), **totals, "buckets": list(buckets(distribution))})

    def end(self, account: Account) -> None:
        self._object({"summary": account.values()})

    def plain(self, row: Row) -> dict[str, Any]:
        """A row for JSON: stacks become lists of labels, and columns that only a table shows are left out."""
        if self._stacks:
            from usdtkit.output import frames  # lazy: most rows have no stack

            labels = {column.name: frames.of_column(column, row[column.name]) for column in self._stacks_of(row)}
            row = {**row, **labels}
        if self._hidden:
            row = {name: value for name, value in row.items() if name not in self._hidden}
        return flatten(row)

    def _stacks_of(self, row: Row) -> list[Column]:
        return [column for column in self._stacks if column.name in row]

    def _object(self, values: Mapping[str, Any]) -> None:
        self.stream.write(json.dumps(values) + "\n")
        self.stream.flush()


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the wall-clock time first, and a mark beside each value of which only the beginning was read."""
    row: dict[str, Any] = {}
    if "time_ns" in values:
        row["time"] = event_time(values["time_ns"])
    for name, value in values.items():
        row[name] = _plain(value)
        if is_cut(value):
            row[f"{name}_truncated"] = True
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return flatten(value)
    return [_plain(item) for item in value] if isinstance(value, list) else jsonable(value)


SINK = JsonSink
