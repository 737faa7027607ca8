"""Markdown, for tickets and chats: tables of rows and of the buckets of histograms, and the account as the last line.

Input: results. Output: GitHub's dialect of Markdown, whose columns are aligned in its source too. So the rows of a
table are kept until it is complete; rows that come one by one are one table, which is written when the trace ends.
Text stands in spans of code, where a renderer looks for no markup, HTML, links or names of people: strings of a traced
program are shown as they are. Uses what `table` makes of a value.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TextIO

from usdtkit.output import frames
from usdtkit.output.formats.table import cell_text
from usdtkit.output.histogram import duration, labels_text, statistics
from usdtkit.output.sink import Sink, buckets
from usdtkit.output.text import printable
from usdtkit.results.account import Account
from usdtkit.results.blocks import Histogram, Row, Table
from usdtkit.results.columns import NUMBERS, PERCENTS, Column, Schema

# Text that no renderer takes for markup, for a link, or for the name of somebody.
PLAIN = re.compile(r"(?!.*www\.)[A-Za-z0-9?][A-Za-z0-9?,.%()=: -]*", re.IGNORECASE)
BACKQUOTES = re.compile(r"`+")


class MarkdownSink(Sink):
    """Writes a table for each block, or one for all rows that come by themselves."""

    shows_account = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._columns: list[Column] = []
        self._cells: list[list[str]] = []
        self._blocks = 0

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        self._columns = [column for column in schema.columns if column.heading or column.type == "stack"]
        if all(column.type == "stack" for column in self._columns):
            # A table of the terminal writes these values above and below their stacks.
            self._columns = [column for column in self.visible() if column.type != "time"]

    def row(self, row: Row) -> None:
        self._cells.append([_cell(column, row) for column in self._columns])

    def interval(self, *, timestamp: bool = False) -> None:
        super().interval()
        self._flush()
        if timestamp:
            self._paragraph(time.strftime("%H:%M:%S"))

    def table(self, table: Table) -> None:
        self._flush()
        if table.title:
            self._paragraph(inline(table.title))
        super().table(table)
        self._flush()

    def histogram(self, histogram: Histogram) -> None:
        self._flush()
        bound = duration if histogram.value.endswith("_ns") else str
        if labels := labels_text(histogram.labels):
            self._paragraph(inline(", ".join(labels)))
        heading = [inline(histogram.value.removesuffix("_ns")), "count"]
        rows = []
        for bucket in buckets(histogram.distribution.by_powers()):
            low, high = ("" if edge is None else bound(edge) for edge in (bucket["low"], bucket["high"]))
            rows.append([inline(f"{low} .. {high}".strip()), str(bucket["count"])])
        self._table(heading, [True, True], rows)
        if rows:
            self._paragraph(inline(statistics(histogram.distribution, PERCENTS, bound)))

    def close(self) -> None:
        self._flush()
        super().close()

    def end(self, account: Account) -> None:
        self._flush()
        self._paragraph(inline(account.line()))

    def _flush(self) -> None:
        """Write the rows since the last table as one, without the columns in which nothing stands."""
        used = [number for number in range(len(self._columns)) if any(cells[number] for cells in self._cells)]
        if used:
            columns = [self._columns[number] for number in used]
            heading = [inline(column.heading or column.name) for column in columns]
            rows = [[cells[number] for number in used] for cells in self._cells]
            self._table(heading, [column.right for column in columns], rows)
        self._cells = []

    def _table(self, heading: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(3, *map(len, column)) for column in zip(heading, *rows, strict=True)]
        rule = ["-" * (width - is_right) + ":" * is_right for width, is_right in zip(widths, right, strict=True)]
        lines = []
        for cells in (heading, rule, *rows):
            columns = zip(cells, widths, right, strict=True)
            padded = (f"{cell:>{width}}" if is_right else f"{cell:<{width}}" for cell, width, is_right in columns)
            lines.append(f"| {' | '.join(padded)} |")
        self._paragraph("\n".join(lines))

    def _paragraph(self, text: str) -> None:
        """Write text after an empty line, which is what separates it from a table above."""
        print(f"\n{text}" if self._blocks else text, file=self.stream, flush=True)
        self._blocks += 1


def inline(text: str) -> str:
    """Text within a line: as it is where it can be nothing else, and as code otherwise."""
    return text if PLAIN.fullmatch(text) else code(text)


def code(text: str) -> str:
    """Text as spans of code in a cell, one for each of its lines, with <br> between them."""
    return "<br>".join(_span(line) for line in text.strip("\n").split("\n"))


def _span(line: str) -> str:
    """One line as a span of code; a table's cell ends at a bar, even within a span, unless a backslash precedes it."""
    line = printable(line).replace("\\|", "\\\\x7c")  # not every renderer sees that this bar would be escaped
    if not line.strip():
        return ""
    longest = max(map(len, BACKQUOTES.findall(line)), default=0)
    fence = "`" * (longest + 1)
    # A space is needed beside a backquote, and lost beside a space: renderers remove one at both ends.
    edge = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{edge}{line}{edge}{fence}".replace("|", "\\|")


def _cell(column: Column, row: Row) -> str:
    if column.name not in row:
        return ""
    value = row[column.name]
    if column.type == "stack" and column.show is None:
        return _span(";".join(frames.of_column(column, value, in_table=True)))
    text = cell_text(column)(value)
    return inline(text) if column.type in (*NUMBERS, "time") else code(text)


SINK = MarkdownSink
