"""Folded stacks, which flame graph tools and speedscope read: one line for each, `outermost;…;innermost WEIGHT`.

Input: results with a column of type "stack". Output: one line for each stack, safe on a terminal. The weight is a
count, or the value of the column with that role; a duration is written in microseconds.
"""

from __future__ import annotations

from usdtkit.errors import UsageError
from usdtkit.output import frames
from usdtkit.output.sink import Sink
from usdtkit.output.text import show
from usdtkit.results.blocks import Histogram, Row, StackSum
from usdtkit.results.columns import Schema


class FoldedSink(Sink):
    """Writes the stacks of rows and blocks; rows have the name of their thread as the outermost frame."""

    def check(self, schema: Schema) -> None:
        if not schema.of_type("stack"):
            raise UsageError(
                f"usdtkit {schema.name} has no stacks to fold with these options",
                hint="use --json, or leave out --format for a table",
            )

    def row(self, row: Row) -> None:
        column = self.schema.of_type("stack")[0]
        weight_column = self.schema.with_role("weight")
        weight = 1 if weight_column is None else row[weight_column.name]
        if weight_column is not None and weight_column.type == "duration":
            weight //= 1000
        labels = reversed(frames.of_column(column, row.get(column.name)))
        self._line([*([show(row["comm"])] if "comm" in row else []), *labels], weight)

    def histogram(self, histogram: Histogram) -> None:
        raise UsageError("a histogram has no stacks to fold", hint="use --json, or leave out --format for a table")

    def stack(self, stack: StackSum) -> None:
        labels = reversed(frames.of_column(self.schema.of_type("stack")[0], stack.frames))
        self._line([*([stack.owner] if stack.owner else []), *labels], stack.weight)

    def _line(self, labels: list[str], weight: int) -> None:
        print(frames.folded(labels), weight, file=self.stream, flush=True)


SINK = FoldedSink
