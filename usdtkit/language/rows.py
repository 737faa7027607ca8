"""Events of `trace` → rows for a report: text for the table, values for JSON and CSV.

Input: events, something that describes them, and which of them are wanted. Output: rows, and the columns for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from usdtkit.output import folded
from usdtkit.output.report import COMM, PID, TIME, Column, Report
from usdtkit.output.text import printable, show
from usdtkit.records import dataclass, field
from usdtkit.trace import wall_time

CPU = Column("CPU", "cpu", 3, right=True)


class Descriptions(Protocol):
    """What describes events; `usdtkit.language.hooks.Messages` is one.

    A row has the fields of the event's header, `arguments` (values by name), and `message` if a format was given.
    """

    def row(self, event: Any, /) -> dict[str, Any]:
        """An event as a row."""

    def stop(self) -> None:
        """Stop the session whose events these are."""


def seconds_column(*, unix: bool = False) -> Column:
    """The time of an event in seconds since this call, or with `unix` since 1970."""
    now = time.monotonic_ns()

    def seconds(time_ns: int) -> str:
        return f"{wall_time(time_ns):.6f}" if unix else f"{(time_ns - now) / 1e9:.6f}"

    return Column("TIME(s)", "time_ns", 17 if unix else 12, seconds)


def columns(first: Column = TIME, *, cpu: bool = False) -> list[Column]:
    """The columns of a table whose `first` is the time."""
    others = (PID, COMM, Column("PROBE", "probe", 24), Column("ARGUMENTS", "text", 0, str))
    return [first, *([CPU] if cpu else []), *others]


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """order_id=42 customer="ada"."""
    return " ".join(
        f'{printable(name)}="{show(value)}"' if isinstance(value, str) else f"{printable(name)}={show(value)}"
        for name, value in arguments.items()
    )


@dataclass
class Rows:
    """Makes rows of events. Rows for JSON and CSV are `structured`: they hold values in place of text.

    Only events whose text has `containing` in it become rows, and after `limit` of them the session is stopped. With
    `aggregate`, equal rows are held back and shown once at the end, with their count.
    """

    messages: Descriptions
    structured: bool
    containing: str = ""
    limit: int | None = None
    aggregate: bool = False
    addresses: bool = False
    _equal: dict[str, dict[str, Any]] = field(default_factory=dict)

    def describe(self, event: Any) -> dict[str, Any] | None:
        """The row of an event, or None if it is not wanted or is held back."""
        row = self.messages.row(event)
        text = row["message"] if row.get("message") is not None else arguments_text(row["arguments"])
        if self.limit == 0 or self.containing not in text:
            return None
        self._count_down()
        if "stack" in row:
            stack = row.pop("stack")
            text = folded.below(text, stack, addresses=self.addresses)
            row["stack"] = folded.shown(stack, addresses=self.addresses)
        if not self.structured:
            row["text"] = text
        if not self.aggregate:
            return row
        key = f"{row['pid']} {row['tid']} {row['comm']} {row['probe']} {text}"
        self._equal.setdefault(key, {**row, "count": 0})["count"] += 1
        return None

    def _count_down(self) -> None:
        if self.limit is not None:
            self.limit -= 1
            if not self.limit:
                self.messages.stop()

    def finish(self, report: Report) -> None:
        """Write the rows that were held back, the rarest first."""
        for row in sorted(self._equal.values(), key=lambda row: int(row["count"])):
            report.row(row if self.structured else {**row, "text": f"{row['text']}\n-->COUNT {row['count']}"})
