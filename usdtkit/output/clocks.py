"""The times of events as text, of which all but the fraction of the second stays the same for a second.

Input: CLOCK_MONOTONIC in nanoseconds. Output: the wall-clock time, as a format writes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Turns the time of an event into text: what `spell` makes of the second since the epoch, a dot, and so many
    `digits` of its fraction."""

    def __init__(self, spell: Callable[[int], str], digits: int) -> None:
        self._spell = spell
        self.digits = digits

    def second(self, time_ns: int) -> tuple[int, str]:
        """When the second of that time began, as `time_ns` counts, and its text, up to the dot."""
        from usdtkit.trace.events import wall_ns  # lazy: a list of probes has no times, and need not load the tracer

        second, fraction = divmod(wall_ns(time_ns), 1_000_000_000)
        return time_ns - fraction, f"{self._spell(second)}."

    def __call__(self, time_ns: int) -> str:
        begin, text = self.second(time_ns)
        return f"{text}{(time_ns - begin) // 10 ** (9 - self.digits):0{self.digits}}"


UTC = Clock(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)), 6)
"""As RFC 3339 writes it, without the Z at its end."""
LOCAL = Clock(lambda second: time.strftime("%H:%M:%S", time.localtime(second)), 3)


def event_time(time_ns: int) -> str:
    """The time of an event as RFC 3339 writes it, in UTC."""
    return f"{UTC(time_ns)}Z"
