"""CSV with a heading, for spreadsheets and data frames: every value of a row, a histogram as a row for each bucket.

Input: results. Output: lines of CSV. A stack is one folded line, outermost frame first. A string that a spreadsheet
would take for a formula begins with an apostrophe. A string of which only the beginning was read ends with "…", as in
a table: the heading is written once, so it has no place for the mark that JSON puts beside such a string.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any

from usdtkit.output import frames
from usdtkit.output.formats.json import flatten
from usdtkit.output.sink import Sink, buckets
from usdtkit.output.text import is_cut, printable, show
from usdtkit.results.blocks import Histogram, Row
from usdtkit.results.columns import BUCKETS, Schema

_OF_HISTOGRAMS = {column.name for column in BUCKETS} - {"value", "count"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class CsvSink(Sink):
    """Writes a heading, then one line for each row.

    The heading has the names of the first row's values, and then those that only other rows of the tool may have.
    """

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        self._names: tuple[str, ...] = ()
        self._writer = csv.writer(self.stream, lineterminator="\n")

    def row(self, row: Row) -> None:
        values = dict(row)
        for column in self.schema.columns:
            if column.table_only:
                values.pop(column.name, None)
            elif column.type == "stack" and column.name in values:
                values[column.name] = frames.folded(reversed(frames.of_column(column, values[column.name])))
        self._write(flatten({name: show(value) if is_cut(value) else value for name, value in values.items()}))

    def histogram(self, histogram: Histogram) -> None:
        values = flatten(self.stamped({**histogram.labels, "value": histogram.value}))
        for bucket in buckets(histogram.distribution):
            self._write({**values, **bucket})

    def _write(self, values: Mapping[str, Any]) -> None:
        if not self._names:
            self._names = (*values, *(name for name in self._optional_names() if name not in values))
            self._writer.writerow(self._names)
        self._writer.writerow([_cell(values.get(name)) for name in self._names])
        self.stream.flush()

    def _optional_names(self) -> list[str]:
        """The names of values that some rows lack. Of a histogram, only a bucket's bounds and count are written."""
        has_histograms = bool(self.schema.of_type("buckets"))
        names = [column.name for column in self.visible() if column.optional and column.name not in _OF_HISTOGRAMS]
        return [*names, *(("low", "high") if has_histograms else ())]


def _cell(value: Any) -> Any:
    if isinstance(value, (Mapping, list)):
        return json.dumps(value)
    if isinstance(value, str):
        value = printable(value)
        return f"'{value}" if value.startswith(FORMULA) else value
    return value


SINK = CsvSink
