"""Cells of a line → a writer of many lines at a time, which takes the values from events or from rows.

Input: for each column what a format writes there, as `Cell`s. Output: `Lines`, whose `text` gives the lines of many
rows. The work is done in C (native/lines.c), which writes whole numbers and plain ASCII itself, and asks a cell's
`shown` for the text of everything else.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from typing import Any

from usdtkit import _lines
from usdtkit.output.clocks import Clock
from usdtkit.records import NamedTuple

PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " "
"""The ASCII characters that need no escape on a terminal."""
WHOLE = 1.0
"""`Cell.numbers` of a column whose whole numbers are written as they are."""


class Cell(NamedTuple):
    """What stands in a line for one column.

    `name` is the attribute of an event, or the key of a row, that has the value; with `of`, that makes the value of the
    event or row. `before` precedes its text, which `shown` makes, except of these:
    - a str of `plain` ASCII characters, or `inner` ones behind its first, is written as it is, between `quote`s
    - whole numbers, if there are `numbers`: WHOLE, or what a number is divided by before it is written with two places
    - times, if there is a `clock`
    - with `nested`, a dict of nothing else, as JSON writes it
    In aligned lines, a cell has `width` characters, and `right` says at which side its text is.
    """

    name: str
    of: Callable[[Any], Any] | None
    shown: Callable[[Any], str]
    before: str = ""
    plain: str = ""
    inner: str = ""
    quote: str = ""
    width: int = 0
    right: bool = False
    numbers: float = 0.0
    nested: bool = False
    clock: Clock | None = None


def _clock(cell: Cell) -> tuple[Callable[[int], tuple[int, str]] | None, int]:
    return (None, 0) if cell.clock is None else (cell.clock.second, cell.clock.digits)


class Lines:
    """Lines with these cells. `end` ends each of them. `aligned` ones are those of a table: after a cell that is too
    long, the next ones move as little as possible."""

    def __init__(self, cells: Iterable[Cell], end: str = "\n", *, aligned: bool = False) -> None:
        described = ((*cell[:-1], *_clock(cell)) for cell in cells)
        self.text: Callable[[list[Any]], str] = _lines.Lines(tuple(described), end, aligned).text
        """The lines of a list of events, or of dicts."""
