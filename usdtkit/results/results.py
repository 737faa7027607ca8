"""A session that is set up → rows as they come, or summaries of intervals.

Input: a session with its sources, columns, and a function of the tool or provider that describes events or sums them
up. Output: `Rows` or `Summaries`, which a tool's `trace` returns. `usdtkit.cli.tracing` writes them to the sink that
the user chose; Python code iterates over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usdtkit.results.blocks import Block, Row
from usdtkit.results.columns import Column, Schema

if TYPE_CHECKING:
    from usdtkit.trace import Session

Describe = Callable[[Any], Row | None]


class Results:
    """The results of a tool: a session with its columns. Its two kinds are `Rows` and `Summaries`.

    `notes` returns lines for the person at the terminal when the trace has ended. `exit_code` returns the exit code
    that the results ask for, if the trace itself went well.
    """

    def __init__(
        self,
        session: Session,
        columns: Sequence[Column],
        *,
        notes: Callable[[], Iterable[str]] = tuple,
        exit_code: Callable[[], int] = int,
    ) -> None:
        self.session = session
        self.columns = tuple(columns)
        self.notes = notes
        self.exit_code = exit_code


class Rows(Results):
    """A row for each event. Its columns say what is in it: a field of the event, or what a column's `of` makes of it.

    If that is not enough, `describe` makes the row, and returns None for events that have none. `rest` returns rows
    that are written when the trace has ended.
    """

    def __init__(
        self,
        session: Session,
        columns: Sequence[Column],
        describe: Describe | None = None,
        *,
        rest: Callable[[], Iterable[Block]] = tuple,
        **closing: Any,
    ) -> None:
        super().__init__(session, columns, **closing)
        self.describe = describe
        self.rest = rest

    def __iter__(self) -> Iterator[Row]:
        schema = Schema("", self.columns)
        for event in self.session:
            for row in self.taken([event]):
                yield row if isinstance(row, Mapping) else schema.row(row)

    def batches(self) -> Iterator[list[Any]]:
        """As iteration, what came together in lists, as a sink takes it."""
        return filter(None, map(self.taken, self.session.lists()))

    def taken(self, events: list[Any]) -> list[Any]:
        """What a sink takes for events: these themselves if the columns tell all, or rows."""
        if self.describe is None:
            return events
        return [row for row in map(self.describe, events) if row is not None]


class Summaries(Results):
    """The blocks of each interval: `summarise` returns those for the time since its last call.

    `take` is called with each event, for values that the kernel does not sum up by itself.
    """

    def __init__(
        self,
        session: Session,
        columns: Sequence[Column],
        summarise: Callable[[], Iterable[Block]],
        *,
        take: Callable[[Any], object] | None = None,
        **closing: Any,
    ) -> None:
        super().__init__(session, columns, **closing)
        self.summarise = summarise
        self.take = take

    def every(self, seconds: float | None = None) -> Iterator[list[Block]]:
        """The blocks of each interval of this many seconds, and of the rest at the end. None means one interval."""
        for _ in self.session.intervals(seconds, self.take):
            yield list(self.summarise())
