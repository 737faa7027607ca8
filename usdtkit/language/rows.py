"""Events of `hooks.Messages` → rows: one for each hit, or one for equal hits with their count.

Input: events, and conditions on their text. Output: rows for `usdtkit.results.Rows`, with a `text` for tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.language.hooks import Messages
from usdtkit.output import frames
from usdtkit.output.text import printable, show, show_argument
from usdtkit.records import dataclass, field


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Values by name as text, such as `order_id=42 customer="ada"`."""
    return " ".join(
        f'{printable(name)}="{show(value)}"' if isinstance(value, str) else f"{printable(name)}={show_argument(value)}"
        for name, value in arguments.items()
    )


@dataclass
class MessageRows:
    """Makes rows of events.

    Only events whose text contains `containing` become rows, and no more than `limit` of them. With `aggregate`, equal
    events are held back until the end, and then are one row with their `count`.
    """

    messages: Messages
    containing: str = ""
    limit: int | None = None
    aggregate: bool = False
    held_back: dict[tuple[object, ...], dict[str, Any]] = field(default_factory=dict)

    def describe(self, event: Any) -> dict[str, Any] | None:
        """The row of an event, or None if none is to be shown now."""
        row = self.messages.row(event)
        text = row["message"] if row.get("message") is not None else arguments_text(row["arguments"])
        if self.limit == 0 or self.containing not in text:
            return None
        if self.limit is not None:
            self.limit -= 1
            if not self.limit:
                self.messages.stop()
        row["text"] = text
        if not self.aggregate:
            return row
        stack = frames.labels(row["stack"], offsets=True) if "stack" in row else ()
        key = (row["pid"], row["tid"], row["comm"], row["probe"], text, stack)
        self.held_back.setdefault(key, {**row, "count": 0})["count"] += 1
        return None

    def rest(self) -> Iterator[dict[str, Any]]:
        """The rows that were held back, the rarest first."""
        for row in sorted(self.held_back.values(), key=lambda row: int(row["count"])):
            yield {**row, "text": f"{row['text']}\n-->COUNT {row['count']}"}
