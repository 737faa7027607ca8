"""What runs in a callback that takes long: the code of the program that blocks its loop.

A callback is known to have been slow when it has ended, and then nothing shows any more what it did; the name of its
task is often that of a framework. So while somebody traces asyncio:blocked, the watcher's thread looks every 10 ms
whether a callback has been running for long, and takes the stack of its thread.

Input: callbacks that `tasks` reports to begin and to end. Output: asyncio:blocked, once for each callback that has run
for LONG, with the stack that was seen most often.
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections import Counter
from types import FrameType
from typing import NamedTuple

from usdtkit.instrument import watcher
from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import Provider

LONG_NS = 20_000_000
_MAX_STACK = 1000
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))
_STANDARD = (*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")), "<frozen ")
_OURS = __file__.removesuffix("instrument/asyncio/blocked.py")
_BEGIN = __file__.replace("blocked.py", "tasks.py")


class _Place(NamedTuple):
    function: str
    file: str
    line: int
    stack: str


class Running:
    """A callback that is running: when it began, and the places where its thread was seen since."""

    __slots__ = ("began", "places")

    def __init__(self) -> None:
        self.began = time.monotonic_ns()
        self.places: Counter[_Place] = Counter()


class Blocks:
    """The probe `blocked` of a provider, and the callbacks that are running: at most one a thread."""

    def __init__(self, provider: Provider) -> None:
        self._running: dict[int, Running] = {}
        self.probe = provider.probe(
            "blocked",
            doc="A callback of the loop has run for 20 ms or longer.",
            name=argument("str", doc="name of the task's coroutine, or of the callback"),
            latency_ns=argument("u64", unit="ns"),
            function=argument("str", doc="the innermost function that is not of a library, as seen while it ran"),
            file="str",
            line="u32",
            stack=argument("str", doc="all functions, the innermost first"),
        )

    def watch(self) -> None:
        """Let the watcher's thread look at callbacks while somebody traces the probe."""
        watcher.watch(lambda on: watcher.native.look(self._look if on else None), self.probe)

    def begin(self, thread: int) -> Running:
        running = self._running[thread] = Running()
        return running

    def end(self, thread: int, running: Running, name: str, latency: int) -> None:
        self._running.pop(thread, None)
        if latency >= LONG_NS:
            # C code that keeps the GIL cannot be looked at.
            [(place, _)] = running.places.most_common(1) or [(_Place("", "", 0, ""), 0)]
            self.probe(name, latency, *place)

    def is_running(self, thread: int) -> bool:
        return thread in self._running

    def _look(self) -> None:
        now = time.monotonic_ns()
        slow = [(thread, each) for thread, each in list(self._running.items()) if now - each.began >= LONG_NS // 2]
        if slow:
            frames = sys._current_frames()
            for thread, running in slow:
                # A callback that has ended meanwhile, or that its thread has lost by a fork, is not looked at.
                is_there = thread in frames and self._running.get(thread) is running
                if is_there and (place := _place(frames[thread])) is not None:
                    running.places[place] += 1


def _place(frame: FrameType | None) -> _Place | None:
    """Return the place of a thread within its callback, or None if it has not begun or has ended."""
    stack: list[str] = []
    shown: tuple[int, str, str, int] | None = None
    while frame is not None and frame.f_code.co_filename != _BEGIN:
        code, line = frame.f_code, frame.f_lineno or 0
        if not code.co_filename.startswith(_OURS):
            name = getattr(code, "co_qualname", code.co_name)  # from 3.11 on
            stack.append(f"{name} ({code.co_filename.rpartition('/')[2]}:{line})")
            how_far = _distance(code.co_filename)
            if shown is None or how_far < shown[0]:
                shown = how_far, name, code.co_filename, line
        frame = frame.f_back
    return None if shown is None else _Place(*shown[1:], " < ".join(stack)[:_MAX_STACK])


def _distance(file: str) -> int:
    """Return 0 for code of the program, 1 for that of an installed library, 2 for that of the standard library."""
    if file.startswith(_LIBRARIES) or "/dist-packages/" in file:
        return 1
    return 2 if file.startswith(_STANDARD) else 0
