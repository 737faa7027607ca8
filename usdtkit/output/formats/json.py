"""JSON Lines: a header object, an object for each row with units in the names, and the account as the last object.

Input: results. Output: lines of ASCII, one for each object. `usdtkit schema NAME` prints their JSON Schema.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from usdtkit.model import PythonCaller
from usdtkit.output.clocks import UTC, event_time
from usdtkit.output.lines import PRINTABLE, WHOLE, Cell, Lines
from usdtkit.output.sink import Sink, buckets, iso_time
from usdtkit.output.text import is_cut, jsonable
from usdtkit.results.account import Account
from usdtkit.results.blocks import Histogram, Row
from usdtkit.results.columns import PERCENTS, Column, Schema

if TYPE_CHECKING:
    from usdtkit.trace import Frame

PLAIN = PRINTABLE.replace('"', "").replace("\\", "")
"""What needs no escape between quotes."""


class JsonSink(Sink):
    """Writes one object on each line, and flushes what came together."""

    shows_account = True

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        self._columns = {column.name: column for column in schema.columns}
        self._of_events = self._lines([column.name for column in self.visible()], of_events=True)
        self._of_rows: dict[tuple[str, ...], Lines] = {}  # by the names of the values that a row has
        self._object({"schema": schema.title, "time": iso_time(time.time())})

    def row(self, row: Row) -> None:
        self.rows([dict(row)])

    def rows(self, rows: list[Any]) -> None:
        if isinstance(rows[0], dict):
            self.stream.write("".join([self._of_row(row).text([row]) for row in rows]))
        else:
            self.stream.write(self._of_events.text(rows))
        self.stream.flush()

    def histogram(self, histogram: Histogram) -> None:
        distribution = histogram.distribution
        values = flatten(self.stamped({**histogram.labels, "value": histogram.value}))
        totals: dict[str, Any] = {"count": distribution.count, "sum": distribution.sum}
        totals |= {f"p{percent}": distribution.percentile(percent) for percent in PERCENTS}
        self._object({**values, **totals, "buckets": list(buckets(distribution))})

    def end(self, account: Account) -> None:
        self._object({"summary": account.values()})

    def _of_row(self, row: Row) -> Lines:
        names = tuple(row)
        if names not in self._of_rows:
            hidden = {column.name for column in self.schema.columns if column.table_only}
            self._of_rows[names] = self._lines([name for name in names if name not in hidden], of_events=False)
        return self._of_rows[names]

    def _lines(self, names: Sequence[str], *, of_events: bool) -> Lines:
        """Objects with these members. The wall-clock time comes first."""
        return Lines(self._cells(names, of_events=of_events), "}\n" if names else "{}\n")

    def _cells(self, names: Sequence[str], *, of_events: bool) -> Iterator[Cell]:
        before = "{"
        if "time_ns" in names:
            yield Cell("time_ns", None, UTC, before='{"time": "', clock=UTC)
            before = 'Z", '
        for name in names:
            column = self._columns.get(name)
            of = None if column is None or not of_events else column.of
            shown = member(name, column)
            yield Cell(name, of, shown, f"{before}{json.dumps(name)}: ", PLAIN, quote='"', numbers=WHOLE, nested=True)
            before = ", "

    def _object(self, values: Mapping[str, Any]) -> None:
        self.stream.write(json.dumps(values) + "\n")
        self.stream.flush()


def member(name: str, column: Column | None = None) -> Callable[[Any], str]:
    """What writes the value of a member, and a mark beside each value of which only the beginning was read."""
    if column is not None and column.type == "stack":
        return partial(_stack, name, column)
    mark = f", {json.dumps(f'{name}_truncated')}: true"
    return lambda value: json.dumps(_plain(value)) + (mark if is_cut(value) else "")


def _stack(name: str, column: Column, stack: Any) -> str:
    """The frames of a stack, and a mark beside it if outer ones are known to be missing."""
    from usdtkit.output import frames  # lazy: most rows have no stack

    calls = frames.of_kind(stack, column.frames)
    if calls is None:
        return "null"
    mark = f", {json.dumps(f'{name}_end')}: {json.dumps(calls.end)}" if calls.end else ""
    frames.learn([calls])
    return f"[{', '.join([_frame(frame, column.addresses) for frame in calls.frames])}]{mark}"


@lru_cache(4096)
def _frame(frame: Frame, addresses: bool) -> str:
    """A frame as an object. The same frames come again and again; without the cache they took 18 times as long."""
    from usdtkit.output import frames

    return json.dumps(frames.values(frame, addresses=addresses))


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
    if isinstance(value, PythonCaller):
        return {name: _plain(part) or None for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return flatten(value)
    return [_plain(item) for item in value] if isinstance(value, list) else jsonable(value)


SINK = JsonSink
