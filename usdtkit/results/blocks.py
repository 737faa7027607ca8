"""The blocks that tools show: rows, tables of rows, histograms, and stacks with their sums.

Input: values of events and of tables in the kernel. Output: blocks, which a sink of `usdtkit.output` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from usdtkit.records import dataclass, field

if TYPE_CHECKING:
    from usdtkit.trace import Distribution, Frame, Stack

Row = Mapping[str, Any]
"""The values of one row by the names of its columns."""


@dataclass(frozen=True)
class Table:
    """Rows that belong together. A table prints `title` above them if there is one."""

    rows: Iterable[Row]
    title: str = ""

    def __post_init__(self) -> None:
        # Made into a tuple now, because a generator would see later values of the variables that it uses.
        self.__dict__["rows"] = tuple(self.rows)


@dataclass(frozen=True)
class Histogram:
    """The distribution of a value.

    `value` names what was measured and ends in its unit, such as `latency_ns`. `labels` say whose values these are.
    Formats for people draw it by powers of two, and others have all of its buckets.
    """

    distribution: Distribution
    value: str = "latency_ns"
    labels: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Calls:
    """Calls that are shown as a `usdtkit.trace.Stack` is, and were not taken as one: innermost first.

    `end` says why outer calls are missing, "" if they are not, and None if that is not known.
    """

    frames: tuple[Frame, ...]
    end: str | None = None


@dataclass(frozen=True)
class StackSum:
    """A stack, and the sums over all hits with this stack.

    `frames` is a `usdtkit.trace.Stack`, None if none was taken, or `Calls`. `weight` is the number that a flame graph
    draws. `values` are the row's other values by the names of its columns. A table prints `before`
    above the frames, each of which begins with `indent`, and `after` below them. Formats with a row for each stack have
    a row for each of `parts` instead, if there are any. `owner` is the outermost frame of a folded line, such as
    "nginx-1234".
    """

    frames: Stack | Calls | None
    weight: int
    values: Row
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    owner: str = ""
    indent: str = "  "
    parts: Sequence[Row] = ()


# Union, because Python 3.10 joins no class with the class that `records` makes of another by the operator.
Block = Union[Row, Table, Histogram, StackSum]  # noqa: UP007
