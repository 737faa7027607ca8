"""Looks at processes in a thread, so that their stacks are whole soon after they began to run a traced file.

Input: the traced files, and numbers of processes that have mapped something, which `discovery` tells. Output: calls of
a function that looks at what a process has mapped (`unwinder`). First come the processes that run already and map a
traced file, the youngest first. A process that keeps mapping files is looked at twenty times a second, and again in the
end. Used by `running`, in sessions that take stacks by tables.
"""

from __future__ import annotations

import _thread  # threading takes long to import
import time
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.mappings import identities
from usdtkit.maps import Identity, mappings_in, maps_of
from usdtkit.processes import running_pids

PAUSE_S = 0.05
"""At least, between two looks at one process: it maps its libraries one after the other."""
LONGEST_S = 2.0
"""What the looks at processes that run already may take, which may have any number of files."""
MOST_WAITING = 4096


class Learning:
    """The thread that looks at processes."""

    def __init__(
        self,
        learn: Callable[[int], object],
        fresh: deque[int],
        files: Iterable[OpenFile],
        ignored: Iterable[int],
        *,
        looks_around: bool,
    ) -> None:
        """`learn` looks at a process, and `fresh` has those that anybody has looked at. `files` are traced. Those
        `ignored` are looked at by somebody else. With `looks_around`, processes that run already are looked at too, in
        the first seconds."""
        self._ignored = frozenset(ignored)
        self._learn = learn
        self.fresh = fresh
        self.files = shown_as(files)
        """The traced files, as maps shows them."""
        self._looks_around = looks_around
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._looked, self._over = _thread.allocate_lock(), _thread.allocate_lock()
        self._is_ending = False

    def begin(self) -> None:
        """Look at processes from now on."""
        self._looked.acquire()
        self._over.acquire()
        _thread.start_new_thread(self._run, ())

    def ask(self, pid: int) -> None:
        """A process has mapped something: look at it soon. There is no end of waiting ones; the last are left out."""
        if pid not in self._ignored and self._asked.qsize() < MOST_WAITING:
            self._asked.put(pid)

    def add(self, files: Iterable[OpenFile]) -> frozenset[Identity]:
        """More files are traced. Returns how maps shows them."""
        more = shown_as(files)
        self.files |= more
        return more

    def look_around(self, seconds: float = LONGEST_S) -> None:
        """Wait until the processes that ran already were looked at, but not for longer."""
        if self._looked.acquire(timeout=seconds):
            self._looked.release()

    def end(self) -> None:
        """Look at no process any more; a second time does nothing."""
        self._is_ending = True
        self._asked.put(0)
        with self._over:
            return

    def _run(self) -> None:
        try:
            try:
                if self._looks_around:
                    self._learn_running()
            finally:
                self._looked.release()
            self._learn_asked()
        finally:
            self._over.release()

    def _learn_running(self) -> None:
        until = time.monotonic() + LONGEST_S
        for pid in reversed(running_pids()):
            if self._is_ending or time.monotonic() > until:
                return
            with suppress(OSError):  # it has ended, or may not be inspected
                maps = maps_of(pid)
                if any(mappings_in(maps, file) for file in self.files):
                    self._look_at(pid)

    def _look_at(self, pid: int) -> None:
        with suppress(OSError, UsdtkitError):  # descriptors or memory run short: later looks may have them
            self._learn(pid)

    def _learn_asked(self) -> None:
        due: dict[int, float] = {}  # when to look again; a process that was not asked for meanwhile is forgotten then
        again: set[int] = set()
        while not self._is_ending:
            now = time.monotonic()
            for pid in [pid for pid, when in due.items() if when <= now]:
                del due[pid]
                if pid in again:
                    again.remove(pid)
                    self._look_at(pid)
                    due[pid] = time.monotonic() + PAUSE_S
            with suppress(Empty):
                pid = self._asked.get(timeout=max(0.0, min(due.values()) - now) if due else None)
                if pid in due:
                    again.add(pid)
                elif pid:
                    self._look_at(pid)
                    due[pid] = time.monotonic() + PAUSE_S


def shown_as(files: Iterable[OpenFile]) -> frozenset[Identity]:
    """How maps shows these files: an overlay file system shows files of its own."""
    descriptors, overlaid = list[int](), list[OpenFile]()
    for file in files:
        descriptors.append(file.descriptor)
        with suppress(UsdtkitError):  # the path has gone
            overlaid.append(OpenFile.open(file.path))
    shown = identities([*descriptors, *(file.descriptor for file in overlaid)])
    return frozenset(identity for identity in shown if identity is not None)
