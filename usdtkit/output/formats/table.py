"""A table for people: aligned columns, histograms drawn with asterisks, and stacks with one frame on each line.

Input: results. Output: text, in which every string of a traced program is printable. The account goes to standard
error instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from usdtkit.output import frames, histogram
from usdtkit.output.sink import Sink
from usdtkit.output.text import printable, show, show_argument
from usdtkit.results.blocks import Histogram, Row, StackSum, Table
from usdtkit.results.columns import PERCENTS, Column, Schema
from usdtkit.trace import wall_time

UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3}
INDENT = "\n        "


class TableSink(Sink):
    """Writes a heading, then one line for each row; each block has a heading of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._columns: list[Column] = []
        self._cells: list[Callable[[Any], str]] = []
        self._below: list[Column] = []

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        with_heading = [column for column in schema.columns if column.heading]
        self._columns = [column for column in with_heading if not _is_below(column)]
        self._below = [column for column in schema.columns if _is_below(column)]
        self._cells = [cell_text(column) for column in self._columns]
        if self._columns and not schema.in_blocks:
            self._heading()

    def row(self, row: Row) -> None:
        cells = [cell(row[column.name]) for cell, column in zip(self._cells, self._columns, strict=True)]
        text = self._aligned(cells)
        for column in self._below:
            if column.name in row:
                text += f"\n    {column.above}" if column.above else ""
                text = INDENT.join([text, *frames.of_column(column, row[column.name], in_table=True)])
        self._line(text)

    def interval(self, *, timestamp: bool = False) -> None:
        super().interval()
        if timestamp:
            self._line(f"\n{time.strftime('%H:%M:%S')}")

    def table(self, table: Table) -> None:
        self._line(f"\n{printable(table.title)}" if table.title else "")
        if self._columns:
            self._heading()
        for row in table.rows:
            self.row(self.stamped(row))

    def histogram(self, histogram_: Histogram) -> None:
        distribution = histogram_.distribution
        labels = " ".join(f"{name}={show_argument(value)}" for name, value in histogram_.labels.items())
        self._line(f"\n{labels}".rstrip())
        bound = histogram.duration if histogram_.value.endswith("_ns") else str
        for line in histogram.render(distribution, histogram_.value.removesuffix("_ns"), bound):
            self._line(line)
        if distribution.buckets:
            self._line(histogram.statistics(distribution, PERCENTS, bound))

    def stack(self, stack: StackSum) -> None:
        column = self.schema.of_type("stack")[0]
        for line in stack.before:
            self._line(_indented(line))
        for label in frames.of_column(column, stack.frames, in_table=True):
            self._line(f"{stack.indent}{label}")
        for line in stack.after:
            self._line(_indented(line))

    def _heading(self) -> None:
        self._line(self._aligned([column.heading for column in self._columns]))

    def _line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def _aligned(self, cells: Sequence[str]) -> str:
        """The cells aligned in columns. After a cell that is too long, the next ones move as little as possible."""
        line, edge = "", 0
        for cell, column in zip(cells, self._columns, strict=True):
            line, edge = f"{line} ", edge + 1 + column.width
            space = max(edge - len(line), 0)
            line += f"{cell:>{space}}" if column.right else f"{cell:<{space}}"
        return line[1:].rstrip(" ")


def _indented(line: str) -> str:
    """A printable line that keeps the tabs at its beginning."""
    text = line.lstrip("\t")
    return line[: len(line) - len(text)] + printable(text)


def _printable_lines(text: str) -> str:
    """Text that may have several lines, with all of them printable."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def _is_below(column: Column) -> bool:
    return column.type == "stack" and column.show is None


def cell_text(column: Column) -> Callable[[Any], str]:
    """The function that turns a column's value into the text of a cell."""
    if column.type == "stack" and column.show is not None:
        shown = column.show
        return lambda stack: shown(frames.of_column(column, stack, in_table=True))
    if column.show is not None:
        shown_value = column.show
        return lambda value: _printable_lines(shown_value(value))
    if column.type == "time":
        return clock
    if column.unit:
        size = UNITS[column.unit]
        return lambda ns: "?" if ns is None else f"{ns / size:.2f}"
    return show


def clock(time_ns: int) -> str:
    """The local time of an event, HH:MM:SS.mmm."""
    seconds = wall_time(time_ns)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03}"


SINK = TableSink
