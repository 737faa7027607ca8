"""Starts and ends of spans → the spans as trees, each with those within it.

Input: the `Rows` of hits that `rows.MessageRows` makes. Output: a row for each span, in the order of the tree, as soon
as the outermost span and all spans within it have ended. Spans that are open when the trace ends are shown then,
without a latency. Hits of other probes have no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from usdtkit.language.hooks import arguments_text
from usdtkit.output.text import printable, show
from usdtkit.records import dataclass, field, replace
from usdtkit.results import LATENCY_MS, Column, Row, Rows

START, END = ("span", "parent_span", "trace_id"), ("span", "latency_ns", "error")
"""The first arguments of the two probes of a span (`usdtkit.probes.spans`)."""
_TREE = (
    replace(LATENCY_MS, nullable=True, meaning="with --tree: the time from start to end; null if the span is open"),
    Column("depth", type="count", meaning="with --tree: the number of spans around it that are shown"),
    Column("span", type="id", meaning="with --tree: the number of the span"),
    Column("parent_span", type="id", meaning="with --tree: the number of the span around it, or 0"),
    Column("trace_id", type="id", nullable=True, meaning="with --tree: what all spans of one trace share"),
    Column("error", "", "text", nullable=True, meaning="with --tree: what left it, or empty; null if it is open"),
)
COLUMNS = tuple(replace(column, optional=True) for column in _TREE)
"""What rows of spans have besides the columns of hits. Their time and `arguments` are those of the start, and `text` is
a line with the name of the span, indented by its depth."""
MOST_SPANS = 100_000
"""The spans that are kept. If there are more, the oldest tree is shown as far as it has grown."""


@dataclass
class _Span:
    """A span and those within it, in the order of their starts.

    `top` is the outermost span around it, and None for that one itself, whose `open` counts the open spans of its tree.
    """

    row: dict[str, Any]
    top: _Span | None = None
    within: list[_Span] = field(default_factory=list)
    open: int = 1


class Trees:
    """Puts the starts and ends of spans together."""

    def __init__(self) -> None:
        self._spans: dict[int, _Span] = {}  # by number, until their tree is shown
        self._tops: dict[int, _Span] = {}

    def take(self, row: Row) -> Iterator[Row]:
        """The rows of the tree that this hit completes, if it does."""
        arguments = row["arguments"]
        if _is_one(arguments, START):
            self._start(row, dict(arguments))
            if len(self._spans) > MOST_SPANS:
                yield from self._shown(next(iter(self._tops.values())))
        elif _is_one(arguments, END):
            span = self._spans.get(arguments["span"])
            if span is None or span.row["error"] is not None:
                return  # its start was before the trace, or was lost
            span.row |= {"latency_ns": arguments["latency_ns"], "error": arguments["error"] or ""}
            top = span.top or span
            top.open -= 1
            if not top.open:
                yield from self._shown(top)

    def _start(self, row: Row, arguments: dict[str, Any]) -> None:
        number, parent, trace_id = (arguments.pop(name) for name in START)
        ids = {"span": number, "parent_span": parent, "trace_id": trace_id}
        made = _Span({**row, **ids, "arguments": arguments, "latency_ns": None, "error": None})
        around = self._spans.get(parent)
        if around is None:
            self._tops[number] = made
        else:
            made.top = around.top or around
            made.top.open += 1
            around.within.append(made)
        self._spans[number] = made

    def _shown(self, top: _Span) -> Iterator[Row]:
        """The rows of a tree, which is forgotten."""
        self._tops.pop(top.row["span"], None)
        left = [(top, 0)]
        while left:
            span, depth = left.pop()
            left += [(each, depth + 1) for each in reversed(span.within)]
            if self._spans.get(span.row["span"]) is span:
                del self._spans[span.row["span"]]
            yield {**span.row, "depth": depth, "text": _text(span.row, depth)}

    def rest(self) -> Iterator[Row]:
        """The rows of all spans that are left."""
        for top in [*self._tops.values()]:
            yield from self._shown(top)


def _is_one(arguments: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether these are the arguments of a start or an end; any program may have probes with such names."""
    return arguments.keys() >= {*names} and all(isinstance(arguments[name], int) for name in names[:2])


def _text(row: Row, depth: int) -> str:
    """A line such as `payment order_id=42 ValueError`."""
    error = "open" if row["error"] is None else show(row["error"])
    name = printable(row["probe"].partition(":")[2].removesuffix("__start"))
    words = (name, arguments_text(row["arguments"]), error)
    return "  " * depth + " ".join(filter(None, words))


class TreeRows(Rows):
    """The rows of `Trees`, made of the rows of hits."""

    def __init__(self, hits: Rows, columns: Iterable[Column]) -> None:
        super().__init__(hits.session, [*columns], hits.describe, rest=self._rest)
        self._trees = Trees()

    def taken(self, events: list[Any]) -> list[Any]:
        return [row for hit in super().taken(events) for row in self._trees.take(hit)]

    def _rest(self) -> Iterator[Row]:
        return self._trees.rest()
