"""CSV with a heading, for spreadsheets and data frames: every value of a row, a histogram as a row for each bucket.

Input: results. Output: lines of CSV. A stack is one folded line, outermost frame first. A string that a spreadsheet
would take for a formula begins with an apostrophe. A string of which only the beginning was read ends with "…", as in
a table: the heading is written once, so it has no place for the mark that JSON puts beside such a string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from usdtkit.model import PythonCaller
from usdtkit.output import frames
from usdtkit.output.clocks import UTC
from usdtkit.output.formats.json import PLAIN as JSON_PLAIN
from usdtkit.output.formats.json import member
from usdtkit.output.lines import PRINTABLE, WHOLE, Cell, Lines
from usdtkit.output.sink import Sink, buckets
from usdtkit.output.text import is_cut, jsonable, printable, show
from usdtkit.results.blocks import Histogram, Row
from usdtkit.results.columns import BUCKETS, Column, Schema

_OF_HISTOGRAMS = {column.name for column in BUCKETS} - {"value", "count"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Whatever has a comma or a quote is written between quotes.
PLAIN = "".join(sorted({*PRINTABLE} - {*FORMULA, ",", '"'}))
INNER = "".join({*FORMULA} & {*PRINTABLE})


class CsvSink(Sink):
    """Writes a heading, then one line for each row.

    The heading has the names of the first row's values, and then those that only other rows of the tool may have.
    """

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        self._columns = {column.name: column for column in schema.columns}
        self._hidden = {column.name for column in schema.columns if column.table_only}
        self._lines: Lines | None = None

    def row(self, row: Row) -> None:
        self.rows([dict(row)])

    def rows(self, rows: list[Any]) -> None:
        of_events = not isinstance(rows[0], dict)
        if self._lines is None:
            names = [column.name for column in self.visible()] if of_events else [*rows[0], *self._optional_names()]
            self._lines = self._begin([name for name in dict.fromkeys(names) if name not in self._hidden], of_events)
        self.stream.write(self._lines.text(rows))
        self.stream.flush()

    def histogram(self, histogram: Histogram) -> None:
        values = self.stamped({**histogram.labels, "value": histogram.value})
        for bucket in buckets(histogram.distribution):
            self.row({**values, **bucket})

    def _begin(self, names: list[str], of_events: bool) -> Lines:
        """Write the heading; what writes the lines below it, in which nothing stands for the values that a row lacks.

        The wall-clock time comes first.
        """
        has_time = "time_ns" in names
        self.stream.write(f"{','.join(map(_quoted, ['time', *names] if has_time else names))}\n")
        cells = [Cell("time_ns", None if of_events else _getter("time_ns"), UTC, clock=UTC)] if has_time else []
        for name in names:
            column = self._columns.get(name)
            of = (None if column is None else column.of) if of_events else _getter(name)
            before = "Z," if len(cells) == 1 and has_time else "," if cells else ""
            cells.append(Cell(name, of, _shown(column), before, PLAIN, INNER, numbers=WHOLE))
        return Lines(cells)

    def _optional_names(self) -> list[str]:
        """The names of values that some rows lack. Of a histogram, only a bucket's bounds and count are written."""
        has_histograms = bool(self.schema.of_type("buckets"))
        names = [column.name for column in self.visible() if column.optional and not _is_of_histograms(column)]
        return [*names, *(("low", "high") if has_histograms else ())]


def _is_of_histograms(column: Column) -> bool:
    """Whether only objects of histograms have this value, and no row."""
    return column.name in _OF_HISTOGRAMS and not column.heading


def _getter(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda row: row.get(name)


def _shown(column: Column | None) -> Callable[[Any], str]:
    """What writes the values of a column."""
    if column is not None and column.type == "stack":
        of_stack = column
        return lambda stack: _quoted(_text(frames.folded(reversed(frames.of_column(of_stack, stack)))))
    return _cell


_JSON = Lines([Cell("value", None, member("value"), "", JSON_PLAIN, quote='"', numbers=WHOLE, nested=True)], "")


def _cell(value: Any) -> str:
    if is_cut(value) or isinstance(value, PythonCaller):
        value = show(value)
    elif isinstance(value, (Mapping, list)):
        return _quoted(_JSON.text([{"value": value}]))
    value = jsonable(value)
    return "" if value is None else _quoted(_text(value) if isinstance(value, str) else str(value))


def _text(value: str) -> str:
    value = printable(value)
    return f"'{value}" if value.startswith(FORMULA) else value


def _quoted(text: str) -> str:
    """A text as a cell, between quotes where it would end before its end."""
    return '"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\r\n') else text


SINK = CsvSink
