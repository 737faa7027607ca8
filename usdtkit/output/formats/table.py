"""A table for people: aligned columns, histograms drawn with asterisks, and stacks with one frame on each line.

Input: results. Output: text, in which every string of a traced program is printable. The account goes to standard
error instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

from usdtkit.output import frames, histogram
from usdtkit.output.clocks import LOCAL
from usdtkit.output.lines import PRINTABLE, WHOLE, Cell, Lines
from usdtkit.output.sink import Sink
from usdtkit.output.text import printable, show
from usdtkit.results.blocks import Histogram, Row, StackSum, Table
from usdtkit.results.columns import PERCENTS, Column, Schema

UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3}
INDENT = "\n        "


class TableSink(Sink):
    """Writes a heading, then one line for each row; each block has a heading of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._columns: list[Column] = []
        self._below: list[Column] = []
        self._of_rows = self._of_events = Lines(())

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        with_heading = [column for column in schema.columns if column.heading]
        self._columns = [column for column in with_heading if not _is_below(column)]
        self._below = [column for column in schema.columns if _is_below(column)]
        self._of_rows, self._of_events = (
            Lines(_cells(self._columns, of_events=of_events), aligned=True) for of_events in (False, True)
        )
        if self._columns and not schema.in_blocks:
            self._heading()

    def row(self, row: Row) -> None:
        text = self._of_rows.text([dict(row)])[:-1]
        for column in self._below:
            if column.name in row:
                text += f"\n    {column.above}" if column.above else ""
                text = INDENT.join([text, *frames.of_column(column, row[column.name], in_table=True)])
        self._line(text)

    def rows(self, rows: list[Any]) -> None:
        if self._below:
            super().rows(rows)
            return
        lines = self._of_rows if isinstance(rows[0], dict) else self._of_events
        self.stream.write(lines.text(rows))
        self.stream.flush()

    def interval(self, *, timestamp: bool = False) -> None:
        super().interval()
        if timestamp:
            self._line(f"\n{time.strftime('%H:%M:%S')}")

    def table(self, table: Table) -> None:
        self._line(f"\n{printable(table.title)}" if table.title else "")
        columns, lines = self._columns, self._of_rows
        # Tables of a tool may differ: what none of the rows has, although those of another table may, has no column.
        self._columns = [column for column in columns if not (column.optional and _lack(table.rows, column))]
        self._of_rows = Lines(_cells(self._columns, of_events=False), aligned=True)
        if self._columns:
            self._heading()
        for row in table.rows:
            self.row(self.stamped(row))
        self._columns, self._of_rows = columns, lines

    def histogram(self, histogram_: Histogram) -> None:
        distribution = histogram_.distribution
        self._line(f"\n{' '.join(histogram.labels_text(histogram_.labels))}".rstrip())
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
        cells = [cell._replace(shown=str) for cell in _cells(self._columns, of_events=False)]
        headings = {column.name: column.heading for column in self._columns}
        self._line(Lines(cells, "", aligned=True).text([headings]))

    def _line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


def _indented(line: str) -> str:
    """A printable line that keeps the tabs at its beginning."""
    text = line.lstrip("\t")
    return line[: len(line) - len(text)] + printable(text)


def _printable_lines(text: str) -> str:
    """Text that may have several lines, with all of them printable."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def _lack(rows: Iterable[Row], column: Column) -> bool:
    """Whether there are rows, and none of them has a value of this column."""
    has = [column.name in row for row in rows]
    return bool(has) and not any(has)


def _is_below(column: Column) -> bool:
    return column.type == "stack" and column.show is None


def _cells(columns: Sequence[Column], *, of_events: bool) -> Iterator[Cell]:
    """The cells of a line, which has the values of events or those of rows."""
    for number, column in enumerate(columns):
        numbers = 0.0
        if column.show in (None, str) and column.type != "time":
            numbers = UNITS[column.unit] if column.unit else WHOLE
        yield Cell(
            column.name,
            column.of if of_events else None,
            cell_text(column),
            before=" " if number else "",
            plain=PRINTABLE if column.show in (None, str) else "",
            width=column.width,
            right=column.right,
            numbers=numbers,
            clock=LOCAL if column.type == "time" and column.show is None else None,
        )


def cell_text(column: Column) -> Callable[[Any], str]:
    """The function that turns a column's value into the text of a cell."""
    if column.type == "stack" and column.show is not None:
        shown = column.show
        return lambda stack: shown(frames.of_column(column, stack, in_table=True))
    if column.show is not None:
        shown_value = column.show
        return lambda value: _printable_lines(shown_value(value))
    if column.type == "time":
        return LOCAL
    if column.unit:
        size = UNITS[column.unit]
        return lambda ns: "?" if ns is None else f"{ns / size:.2f}"
    return show


SINK = TableSink
