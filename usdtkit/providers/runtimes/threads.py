"""Starts and stops of threads.

Input: the events of `Runtime.threads`: of a runtime's own probes, with the thread's name, or of pthread_create, with
the function that the thread will run. Output: `ThreadChange`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usdtkit.providers.threads import keep_names
from usdtkit.records import NamedTuple
from usdtkit.trace import Session


class ThreadChange(NamedTuple):
    """A thread starts or stops, as `kind` says.

    `name` is the thread's own name, or the label of the function that it will run, which is at `address`.
    """

    time_ns: int
    pid: int
    tid: int
    kind: str
    name: str
    address: int | None = None


class Threads:
    """Tells what the events of a session say about threads."""

    def __init__(self, session: Session, kinds: Mapping[str, str]) -> None:
        """`kinds` has the kind of change for each probe; events of all others are calls of pthread_create."""
        self._session = session
        self._kinds = kinds
        keep_names(session)

    def take(self, event: Any) -> ThreadChange:
        """The change that an event stands for."""
        if event.probe in self._kinds:
            return ThreadChange(event.time_ns, event.pid, event.tid, self._kinds[event.probe], event.name)
        label = self._session.symbol(event.pid, event.start).label
        return ThreadChange(event.time_ns, event.pid, event.tid, "pthread", label, event.start)
