"""How far a long scan is: counts in, one line on a terminal's standard error out, which is gone when the scan ends.

Used by `usdtkit.cli.list`. Nothing is written if standard error is no terminal, or when the scan is quick.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")

_PATIENCE_S, _BETWEEN_S = 0.3, 0.1
_WIDTH = 30


class Progress:
    """A line that shows a count, or a bar if the end is known."""

    def __init__(self) -> None:
        # Not sys.stderr, through which messages go: this is for the terminal, and has control characters.
        self._stream = sys.__stderr__
        self._on = self._stream is not None and self._stream.isatty()
        self._next = time.monotonic() + _PATIENCE_S
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._write("\r\x1b[K")

    def count(self, done: int) -> None:
        """Show how many files have been looked at."""
        if self._is_due():
            self._show(f"looking at files: {done}")

    def over(self, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items, and show a bar for how many are done."""
        for done, item in enumerate(items):
            if self._is_due():
                full = _WIDTH * done // len(items)
                self._show(f"[{'#' * full}{'.' * (_WIDTH - full)}] {done} of {len(items)} files")
            yield item

    def _is_due(self) -> bool:
        return self._on and time.monotonic() >= self._next

    def _show(self, text: str) -> None:
        self._write(f"\r{text}\x1b[K")
        self._shown = True
        self._next = time.monotonic() + _BETWEEN_S

    def _write(self, text: str) -> None:
        assert self._stream is not None
        self._stream.write(text)
        self._stream.flush()
