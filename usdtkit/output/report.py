"""A tool's rows → a table, JSON Lines or CSV on standard output; everything else → standard error.

Input: one mapping a row, by names that carry their units (`latency_ns`). The table shows `columns`, the other two
formats every value. JSON Lines begin with a header object {"schema": "usdtkit.TOOL/1", …} and end with a summary.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from usdtkit.output import histogram
from usdtkit.output.text import is_cut, jsonable, printable, show
from usdtkit.records import dataclass, replace
from usdtkit.trace import Summary, wall_time
from usdtkit.trace.aggregations import Distribution

Format = Literal["table", "json", "csv"]
PERCENTILES = (50, 90, 99)
# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, the row's value it shows, and how. Width 0: the rest of the line."""

    heading: str
    key: str
    width: int
    format: Callable[[Any], str] = show
    right: bool = False
    meaning: str = ""
    table_only: bool = False
    type: str = "value"

    @property
    def name(self) -> str:
        return self.key


def clock(time_ns: int) -> str:
    """The local time of an event, HH:MM:SS.mmm."""
    seconds = wall_time(time_ns)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03}"


def milliseconds(ns: int) -> str:
    """Nanoseconds as milliseconds, two decimals."""
    return f"{ns / 1e6:.2f}"


def microseconds(ns: int) -> str:
    """Nanoseconds as microseconds, two decimals."""
    return f"{ns / 1e3:.2f}"


TIME = Column("TIME", "time_ns", 12, clock)
PID = Column("PID", "pid", 7, right=True)
COMM = Column("COMM", "comm", 16)
LATENCY_US = Column("LAT(us)", "latency_ns", 9, microseconds, right=True)
LATENCY_MS = Column("LAT(ms)", "latency_ns", 9, milliseconds, right=True)


class Report:
    """Writes rows of one tool as they come. Create it when tracing has begun: it writes the heading at once, unless its
    rows come in blocks (`in_blocks`) under headings of their own."""

    def __init__(
        self, tool: str, columns: Sequence[Column], format: Format = "table", *, in_blocks: bool = False
    ) -> None:
        self.format = format
        self._tool = tool
        self._columns = columns
        self._block: dict[str, Any] = {}
        self._csv: tuple[Any, list[str]] | None = None
        if format == "json":
            self._json({"schema": f"usdtkit.{tool}/1", "time": _iso(time.time())})
        elif format == "table" and columns and not in_blocks:
            self._line([column.heading for column in columns])

    def row(self, values: Mapping[str, Any]) -> None:
        """Write one row. `time_ns` becomes wall-clock time in the JSON and CSV formats too."""
        if self.format == "table":
            self._line([column.format(values[column.key]) for column in self._columns])
        elif self.format == "json":
            self._json(flatten(values))
        else:
            self._csv_row(flatten(values))

    def begin_block(self, *, timestamp: bool = False) -> None:
        """Begin what belongs together, such as the counts of an interval: its rows carry the time of now, which the
        table shows before them with `timestamp`."""
        self._block = {"time_ns": time.monotonic_ns()}
        if timestamp and self.format == "table":
            print(f"\n{time.strftime('%H:%M:%S')}")

    def block(self, rows: Iterable[Mapping[str, Any]], *, title: str = "") -> None:
        """Write the rows of a block, in the table under a heading of their own, and perhaps a title."""
        if self.format == "table":
            print(f"\n{printable(title)}" if title else "")
            self._line([column.heading for column in self._columns])
        for row in rows:
            self.row({**self._block, **row})

    def histogram(self, distribution: Distribution, value: str = "latency_ns", **labels: Any) -> None:
        """Write the distribution of a value: its name, which ends in `_ns` where it is a duration, and what it is of.

        JSON has one object with all `buckets`, CSV a row for each of them; `high` does not belong to its bucket.
        """
        self._histogram(distribution, value, (), labels)

    def distribution(self, distribution: Distribution, value: str = "latency_ns", **labels: Any) -> None:
        """As `histogram`, with a line of the average and of PERCENTILES, as bounds; JSON has `p50` and so on."""
        self._histogram(distribution, value, PERCENTILES, labels)

    def _histogram(
        self, distribution: Distribution, value: str, percentiles: Sequence[int], labels: Mapping[str, Any]
    ) -> None:
        counts = sorted(distribution.buckets.items())
        buckets = [
            {**dict(zip(("low", "high"), distribution.scale.bounds(bucket), strict=True)), "count": number}
            for bucket, number in counts
        ]
        row = {**self._block, **labels, "value": value}
        if self.format == "json":
            totals = {"count": distribution.count, "sum": distribution.sum}
            bounds = {f"p{percent}": distribution.percentile(percent) for percent in percentiles}
            self._json({**flatten(row), **totals, **bounds, "buckets": buckets})
        elif self.format == "csv":
            for bucket in buckets:
                self._csv_row(flatten({**row, **bucket}))
        else:
            print(f"\n{' '.join(f'{name}={show(of)}' for name, of in labels.items())}".rstrip())
            bound = histogram.duration if value.endswith("_ns") else str
            for line in histogram.render(distribution, value.removesuffix("_ns"), bound):
                print(line)
            if percentiles and distribution.buckets:
                print(histogram.statistics(distribution, percentiles, bound))
            sys.stdout.flush()

    def summary(self, summary: Summary, reasons: Sequence[str] = (), *, unexplained_ends: int | None = None) -> None:
        """Write the account of the session: as the last JSON object, which has every number, else to standard error,
        with the reasons why there is nothing in it.

        `unexplained_ends`: the ends without a start that say something to the reader; None stands for all of them.
        """
        if self.format == "json":
            self._json({"summary": {name: getattr(summary, name) for name in Summary.__slots__}})
            return
        shown = summary if unexplained_ends is None else replace(summary, unmatched=unexplained_ends)
        # The reasons name the processes that the account would only number.
        note(f"{account(replace(shown, unarmed=0))}: {'; '.join(reasons)}" if reasons else account(shown))

    def _line(self, cells: Sequence[str]) -> None:
        line, edge = "", 0
        for cell, column in zip(cells, self._columns, strict=True):
            line, edge = f"{line} ", edge + 1 + column.width
            room = max(edge - len(line), 0)  # less, behind one that is too long: those after it stay in their columns
            line += f"{cell:>{room}}" if column.right else f"{cell:<{room}}"
        print(line[1:].rstrip(), flush=True)

    def _json(self, value: Mapping[str, Any]) -> None:
        print(json.dumps(value), flush=True)

    def _csv_row(self, values: Mapping[str, Any]) -> None:
        if self._csv is None:
            import csv

            self._csv = csv.writer(sys.stdout, lineterminator="\n"), list(values)
            self._csv[0].writerow(self._csv[1])
        writer, names = self._csv
        writer.writerow([_csv_cell(values.get(name)) for name in names])
        sys.stdout.flush()


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON takes it, with the wall-clock time first, and a mark beside each value that was cut off."""
    row: dict[str, Any] = {}
    if "time_ns" in values:
        row["time"] = _iso(wall_time(values["time_ns"]))
    for name, value in values.items():
        row[name] = _plain(value)
        if is_cut(value):
            row[f"{name}_truncated"] = True
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return flatten(value)
    return [_plain(item) for item in value] if isinstance(value, list) else jsonable(value)


def account(summary: Summary) -> str:
    """One line that says what became of every hit."""
    line = f"received {summary.received:,}, lost {summary.lost:,}"
    rest = {
        "not counted, table full": summary.full,
        "ends without a start": summary.unmatched,
        "abandoned, nested too deep": summary.overflow,
        "starts without an end": summary.abandoned,
        "arguments unreadable": summary.unreadable,
        "stacks not taken": summary.no_stack,
        "calls not fired, values do not fit": summary.rejected,
        "processes not armed": summary.unarmed,
    }
    return ", ".join([line, *(f"{count:,} {what}" for what, count in rest.items() if count)])


def note(text: str) -> None:
    """A line for the person at the terminal, kept apart from the data."""
    print(text, file=sys.stderr, flush=True)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, (Mapping, list)):
        return json.dumps(value)
    if isinstance(value, str):
        value = printable(value)
        return f"'{value}" if value.startswith(FORMULA) else value
    return value


def _iso(seconds: float) -> str:
    """A time since the epoch as RFC 3339 writes it, in UTC."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1_000_000):06}Z"
