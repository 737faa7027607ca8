"""What a session waits for: records in its ring buffers, somebody who stops it, the end of its processes.

Input: the numbers of the processes, later the descriptors of ring buffers. Output: for `session`, whether it is over;
for a loop of somebody else's, one descriptor that is readable when there is something to do.
"""

from __future__ import annotations

import contextlib
import os
import select

from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.processes import process_of


class Waiter:
    """Waits for `pids`, of which without any none can end, and for what it is told to `watch`."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._more = -1  # readable while somebody has left events in hand
        self._poller: select.epoll | None = None
        self._of_processes = bool(pids)
        self._pidfds = _open_pids(pids, self._stop)

    def watch(self, *rings: int) -> None:
        """From now on records in these ring buffers are something that happens."""
        self._poller = select.epoll()
        self._more = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for descriptor in (*rings, self._stop, self._more, *self._pidfds):
            self._poller.register(descriptor, select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor to wait for. UsageError where nothing is watched."""
        if self._poller is None:
            raise UsageError("the session is not running", hint="session.start()")
        return self._poller.fileno()

    def wait(self, seconds: float) -> bool:
        """Wait for something to happen; whether it was `stop`, or the end of the last process."""
        assert self._poller is not None
        ready = {descriptor for descriptor, _ in self._poller.poll(seconds)}
        for pidfd in ready & self._pidfds:
            self._pidfds.discard(pidfd)
            self._poller.unregister(pidfd)
            os.close(pidfd)
        return self._stop in ready or (self._of_processes and not self._pidfds)

    def stop(self) -> None:
        """Let `wait` end. Safe in signal handlers and other threads, until `close`."""
        os.eventfd_write(self._stop, 1)

    def leave(self) -> None:
        """Something is left over: there is something to do until it is taken."""
        if self._more >= 0:
            os.eventfd_write(self._more, 1)

    def take(self) -> None:
        """What was left over is being taken."""
        if self._more >= 0:
            with contextlib.suppress(BlockingIOError):  # it is 0
                os.eventfd_read(self._more)

    def close(self) -> None:
        """Free everything."""
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        for descriptor in (self._stop, self._more, *self._pidfds):
            if descriptor >= 0:
                os.close(descriptor)
        self._stop = self._more = -1
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
            raise NotFoundError(f"no process {pid}", hint="pgrep -a NAME finds the number of a process") from None
        if (process := process_of(pid)) not in (0, pid):
            raise NotFoundError(
                f"{pid} is a thread of process {process}", hint="trace that, where tid is this"
            ) from None
        raise UsdtkitError(f"process {pid}: {error.strerror}") from None
    return opened
