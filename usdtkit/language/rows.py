"""Events of `hooks.Messages` → rows: one for each hit, or one for equal hits with their count.

Input: events, and conditions on their text. Output: rows for `usdtkit.results.Rows`, with a `text` for tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from usdtkit.language.hooks import Messages
from usdtkit.output import frames
from usdtkit.records import dataclass, field
from usdtkit.results.columns import FrameKind


@dataclass
class MessageRows:
    """Makes rows of events.

    Only events whose text contains `containing` become rows, and no more than `limit` of them. With `aggregate`, equal
    events are held back until the end, and then are one row with their `count`. They are equal if their `frames` are.
    """

    messages: Messages
    containing: str = ""
    limit: int | None = None
    aggregate: bool = False
    frames: FrameKind = ""
    held_back: dict[tuple[object, ...], dict[str, Any]] = field(default_factory=dict)

    def describe(self, event: Any) -> dict[str, Any] | None:
        """The row of an event, or None if none is to be shown now."""
        text = self.messages.text(event)
        if self.limit == 0 or self.containing not in text:
            return None
        if self.limit is not None:
            self.limit -= 1
            if not self.limit:
                self.messages.stop()
        row = {**self.messages.row(event), "text": text}
        if not self.aggregate:
            return row
        stack = frames.labels(row["stack"], offsets=True, kind=self.frames) if "stack" in row else ()
        key = (row["pid"], row["tid"], row["comm"], row["probe"], text, stack)
        self.held_back.setdefault(key, {**row, "count": 0})["count"] += 1
        return None

    def rest(self) -> Iterator[dict[str, Any]]:
        """The rows that were held back, the rarest first."""
        for row in sorted(self.held_back.values(), key=lambda row: int(row["count"])):
            yield {**row, "text": f"{row['text']}\n-->COUNT {row['count']}"}
