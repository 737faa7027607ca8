"""Which texts count as alike: a machine of few states that reads a text and says what of it makes a difference.

Input: a function from a state and a byte to the next state and what counts. Output: a `Scanner`, as the table that
interned.c steps through; `counted` does the same in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

from usdtkit.errors import UsageError

MAX_STATES = 32
MAX_MARK = 127
Counted = Literal["byte"] | int | None
"""What of a byte makes a difference: the byte itself; only that something stands here, by the number of its kind (1 to
MAX_MARK); or nothing."""
Step = Callable[[str, int], tuple[str, Counted]]


class Scanner:
    """Texts are alike if the same counts in both of them.

    `step(state, byte)` returns the next state, by name, and what counts. UsageError where there are more than 32
    states, or a kind out of range.
    """

    def __init__(self, first: str, step: Step) -> None:
        self._first, self._step = first, step
        numbers, entries = {first: 0}, []
        waiting = [first]
        while waiting:
            state = waiting.pop(0)
            for byte in range(256):
                following, counts = step(state, byte)
                if following not in numbers:
                    numbers[following] = len(numbers)
                    waiting.append(following)
                code = {None: 0, "byte": 1}.get(counts) if not isinstance(counts, int) else 2 * counts
                if code is None or not 0 <= code <= 2 * MAX_MARK or len(numbers) > MAX_STATES:
                    raise UsageError(f"a scanner of {len(numbers)} states, or with a kind {counts!r}")
                entries.append(numbers[following] << 8 | code)
        self.packed = struct.pack(f"<{MAX_STATES * 256}H", *entries, *[0] * (MAX_STATES * 256 - len(entries)))
        """The table as a `struct scanner` of interned.c."""

    def counted(self, text: bytes) -> tuple[int, ...]:
        """What counts in a text: bytes, and kinds above 255. Texts for which this is equal are alike."""
        state, found = self._first, []
        for byte in text:
            state, counts = self._step(state, byte)
            if counts is not None:
                found.append(byte if counts == "byte" else 255 + counts)
        return tuple(found)


EXACT = Scanner("", lambda state, byte: ("", "byte"))
"""No text is like another."""
