"""Entries and returns of functions as events → the calls that are open in each thread, and the time spent in each.

Input: events of a probe at an entry or a return, with the function's name. Output: `Step`s. Not every call returns: an
exception or the end of the trace may leave it open, so it ends with the call around it, or with the last event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

from usdtkit.records import dataclass

Thread = tuple[int, int]
"""The number of a process, and of one of its threads."""


@dataclass(frozen=True, slots=True)
class Step:
    """A thread enters a function, or leaves one.

    `depth` is the number of calls around this one that the trace has seen. When a call ends, `stack` has the names of
    the open calls, outermost first and its own name last, and `own_ns` the nanoseconds that it spent outside of calls
    of its own. Both are None at an entry, and at a return from a call that began before the trace. `reported` is false
    if the runtime did not report the end of the call.
    """

    time_ns: int
    pid: int
    tid: int
    cpu: int | None
    name: str
    depth: int
    is_entry: bool
    reported: bool = True
    stack: tuple[str, ...] | None = None
    own_ns: int | None = None


@dataclass
class _OpenCall:
    """A call that has not ended. `inner_ns` is the time that ended calls within it took."""

    name: str
    since_ns: int
    inner_ns: int = 0


class CallFlow:
    """The calls of all threads. Made by `Runtime.flow`, whose events it takes in the order of their time."""

    def __init__(self, entries: Collection[str], name_of: Callable[[Any], str]) -> None:
        """`entries` are the names of the probes at entries. `name_of` gives the function's name of an event."""
        self.first_ns = self.last_ns = 0
        self._entries = entries
        self._name_of = name_of
        self._open: dict[Thread, list[_OpenCall]] = defaultdict(list)

    def take(self, event: Any) -> list[Step]:
        """The steps that an event stands for. The last one is the event itself.

        Before a return there may be ends of calls within that call, which were not reported.
        """
        self.first_ns, self.last_ns = self.first_ns or event.time_ns, event.time_ns
        name, thread = self._name_of(event), (event.pid, event.tid)
        calls = self._open[thread]
        if event.probe in self._entries:
            calls.append(_OpenCall(name, event.time_ns))
            return [Step(event.time_ns, *thread, event.cpu, name, len(calls) - 1, is_entry=True)]
        if all(call.name != name for call in calls):
            return [Step(event.time_ns, *thread, event.cpu, name, len(calls), is_entry=False)]
        steps = []
        while calls[-1].name != name:
            steps.append(self._leave(thread, event.time_ns, event.cpu, reported=False))
        return [*steps, self._leave(thread, event.time_ns, event.cpu)]

    def finish(self) -> Iterator[Step]:
        """End all calls that are still open, at the time of the last event."""
        for thread, calls in self._open.items():
            while calls:
                yield self._leave(thread, self.last_ns, None, reported=False)

    def _leave(self, thread: Thread, time_ns: int, cpu: int | None, *, reported: bool = True) -> Step:
        """End the innermost call of a thread."""
        calls = self._open[thread]
        stack = tuple(call.name for call in calls)
        call = calls.pop()
        took_ns = time_ns - call.since_ns
        if calls:
            calls[-1].inner_ns += took_ns
        return Step(
            *(time_ns, *thread, cpu, call.name, len(calls)),
            is_entry=False,
            reported=reported,
            stack=stack,
            own_ns=took_ns - call.inner_ns,
        )
