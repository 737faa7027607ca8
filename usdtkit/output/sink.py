"""The interface of an output format: a sink, which is given a schema, then rows or blocks, then the account.

Input: the name of a format. Output: the sink that its module in `usdtkit.output.formats` makes. A new format is a new
module there, which derives a class from `Sink` and calls it SINK.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

from usdtkit.errors import UsageError, UsdtkitError, one_of
from usdtkit.results.account import Account
from usdtkit.results.blocks import Block, Histogram, Row, StackSum, Table
from usdtkit.results.columns import Column, Schema

if TYPE_CHECKING:
    from usdtkit.trace import Distribution

FORMATS = "usdtkit.output.formats"


class Sink:
    """Writes the results of one tool to `stream`.

    The methods are called in this order: `begin` once, then `rows` for rows that come by themselves, or `interval` and
    `block` for summaries, and `end` once, if there is an account. A format overrides what it writes differently. By
    default, rows are written one by one, a table is its rows, a stack is a row with a column `stack`, and the account
    is not written.
    """

    shows_account = False
    """Whether the format holds the account; if not, it goes to standard error as a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.schema = Schema("")
        self.time_ns: int | None = None

    def check(self, schema: Schema) -> None:
        """Raise UsageError if the format cannot show results of this schema."""

    def begin(self, schema: Schema) -> None:
        """Keep the schema, and write what comes before the rows. UsageError if this format cannot show the results."""
        self.check(schema)
        self.schema = schema

    def row(self, row: Row) -> None:
        """Write one row."""
        raise NotImplementedError

    def rows(self, rows: list[Any]) -> None:
        """Write rows that came together: all of them are rows, or all are events that the schema makes rows of."""
        for row in rows:
            self.row(row if isinstance(row, Mapping) else self.schema.row(row))

    def interval(self, *, timestamp: bool = False) -> None:
        """Begin the blocks of an interval. Their rows carry the present time."""
        self.time_ns = time.monotonic_ns()

    def block(self, block: Block) -> None:
        """Write a row, a table, a histogram, or a stack."""
        if isinstance(block, Mapping):
            self.row(self.stamped(block))
        elif isinstance(block, Table):
            self.table(block)
        elif isinstance(block, Histogram):
            self.histogram(block)
        else:
            self.stack(block)

    def table(self, table: Table) -> None:
        """Write the rows of a table."""
        for row in table.rows:
            self.row(self.stamped(row))

    def histogram(self, histogram: Histogram) -> None:
        """Write a distribution."""
        raise NotImplementedError

    def stack(self, stack: StackSum) -> None:
        """Write a stack and its total."""
        for values in stack.parts or (stack.values,):
            self.row(self.stamped({**values, "stack": stack.frames}))

    def end(self, account: Account) -> None:
        """Write the account of the session."""

    def close(self) -> None:
        """Write what completes the output."""
        self.stream.flush()

    def stamped(self, row: Row) -> Row:
        """The row, with the time of its interval if it has no time of its own."""
        return row if self.time_ns is None else {"time_ns": self.time_ns, **row}

    def visible(self) -> list[Column]:
        """The columns that are not for tables alone."""
        return [column for column in self.schema.columns if not column.table_only]


def buckets(distribution: Distribution) -> Iterator[dict[str, Any]]:
    """The buckets that have values. `low` belongs to its bucket, `high` does not; None means that there is no bound."""
    for bucket, count in sorted(distribution.buckets.items()):
        low, high = distribution.scale.bounds(bucket)
        yield {"low": low, "high": high, "count": count}


def iso_time(seconds: float) -> str:
    """A time since the epoch as RFC 3339 writes it, in UTC."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1_000_000):06}Z"


def format_names() -> list[str]:
    """The formats that are installed, by name."""
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(import_module(FORMATS).__path__))


def sink_type(name: str) -> type[Sink]:
    """The class of the sinks of the format `name`. UsageError if no format has this name."""
    try:
        module = import_module(f"{FORMATS}.{name}") if name.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name != f"{FORMATS}.{name}":
            raise UsdtkitError(f"--format {name} needs the module {error.name}") from None
        module = None
    if module is None:
        raise UsageError(f"no output format is called {name!r}", hint=one_of(name, format_names()))
    kind: type[Sink] = module.SINK
    return kind


def open_sink(name: str, stream: TextIO) -> Sink:
    """A sink of the format `name` that writes to `stream`. UsageError if no format has this name."""
    return sink_type(name)(stream)
