"""Waits for records in the ring buffers of a session, a call of `stop`, or the end of its processes or duration.

Input: the pids, the duration, later the descriptors of ring buffers. Output: for `reading`, whether the session is
over, and a pause in which events gather; for an event loop, one descriptor that is readable when there is something to
do.

The kernel wakes a reader for the first record after it has read all of them, and for no other (`wake_up` in prelude.c)
until a sixteenth of the ring is filled. So a reader that pauses before it reads is woken once for many records.
"""

from __future__ import annotations

import os
import select
import time

from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.processes import process_of


class Waiter:
    """Waits for ring data, `stop`, the end of the duration, or the exit of all of `pids`, if any were given."""

    def __init__(self, pids: tuple[int, ...], duration: float | None, delay: float = 0.0) -> None:
        """`duration`: seconds from the start that is given to `watch`; None waits for the other reasons alone.
        `delay`: for how many seconds records may `gather` once there are some."""
        self._duration = duration
        self._delay = delay
        self._started_at = 0.0
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._left_over = -1  # readable while a reader has left events in hand,
        self._is_left = False  # which this says
        self._poller: select.epoll | None = None
        self._rings: frozenset[int] = frozenset()
        self._early: select.epoll | None = None  # what ends a pause
        self._has_records = False
        self._of_processes = bool(pids)
        self._pidfds = _open_pids(pids, self._stop)

    def watch(self, *rings: int, since: float, most: float) -> None:
        """From now on wake up for records in these ring buffers too. The duration counts from `since` (monotonic).
        Records gather for `most` seconds at most."""
        self._started_at, self._rings = since, frozenset(rings)
        self._delay = min(self._delay, most)
        self._poller = select.epoll()
        self._left_over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for descriptor in (*rings, self._stop, self._left_over, *self._pidfds):
            self._poller.register(descriptor, select.EPOLLIN)
        if self._delay:
            self._early = select.epoll()
            for descriptor in (*rings, self._stop, *self._pidfds):
                # Of a ring each wake-up counts once, because it stays readable until it is read.
                edge = select.EPOLLET if descriptor in self._rings else 0
                self._early.register(descriptor, select.EPOLLIN | edge)

    def fileno(self) -> int:
        """The descriptor to wait for. UsageError where nothing is watched."""
        if self._poller is None:
            raise UsageError("the session is not running", hint="session.start()")
        return self._poller.fileno()

    def left(self) -> float | None:
        """Seconds until the duration is over; None where there is none."""
        if self._duration is None:
            return None
        return max(0.0, self._started_at + self._duration - time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Wait until something happens, for at most `seconds`. Returns whether the session is over."""
        assert self._poller is not None
        left = self.left()
        self._has_records = is_stopped = False
        for descriptor, _ in self._poller.poll(seconds if left is None else min(seconds, left)):
            if descriptor in self._rings:
                self._has_records = True
            elif descriptor == self._stop:
                is_stopped = True
            elif descriptor in self._pidfds:
                self._pidfds.discard(descriptor)
                self._poller.unregister(descriptor)
                os.close(descriptor)
        return is_stopped or (self._of_processes and not self._pidfds) or self.left() == 0.0

    def gather(self, most: float) -> None:
        """Where `wait` has ended because records have come, give more of them time to come: the delay, and `most`
        seconds at most, or less if a ring fills or the session is to end."""
        pause = self.pause()
        if self._early is not None and pause:
            self._early.poll(max(0.0, min(pause, most)))

    def pause(self) -> float:
        """Seconds for which `gather` would wait now, 0.0 if it would not. For event loops, which wait for that long or
        until `early` is readable."""
        if self._early is None or not self._has_records:
            return 0.0
        self._early.poll(0)  # the wake-up that has ended `wait`
        left = self.left()
        return self._delay if left is None else min(self._delay, left)

    @property
    def early(self) -> int:
        """The descriptor that is readable when a pause ends before its time."""
        assert self._early is not None
        return self._early.fileno()

    def stop(self) -> None:
        """Let `wait` end. Safe in signal handlers and other threads, until `close`."""
        os.eventfd_write(self._stop, 1)

    def leave(self) -> None:
        """Events are left over: there is something to do until `resume`."""
        if self._left_over >= 0 and not self._is_left:
            os.eventfd_write(self._left_over, 1)
            self._is_left = True

    def resume(self) -> None:
        """The events that were left over are being read."""
        if self._is_left:
            self._is_left = False
            os.eventfd_read(self._left_over)

    def close(self) -> None:
        """Free everything."""
        for poller in (self._poller, self._early):
            if poller is not None:
                poller.close()
        self._poller = self._early = None
        for descriptor in (self._stop, self._left_over, *self._pidfds):
            if descriptor >= 0:
                os.close(descriptor)
        self._stop = self._left_over = -1
        self._is_left = False
        self._pidfds.clear()


def _open_pids(pids: tuple[int, ...], stop: int) -> set[int]:
    opened: set[int] = set()
    try:
        for pid in pids:
            opened.add(os.pidfd_open(pid))
    except (OSError, OverflowError) as error:
        for descriptor in (*opened, stop):
            os.close(descriptor)
        if isinstance(error, (ProcessLookupError, OverflowError)):
            raise NotFoundError(f"no process {pid}", hint="pgrep -a NAME finds the ID of a process") from None
        if (process := process_of(pid)) not in (0, pid):
            raise NotFoundError(
                f"{pid} is a thread of process {process}", hint="trace that process, and limit the trace to this thread"
            ) from None
        raise UsdtkitError(f"process {pid}: {error.strerror}") from None
    return opened
