"""Waits until something that a session did not find is mapped for the first time.

Input: what was looked for in vain (`Definition.missing`), and the stream of mappings. Output: the moment to look again.
Used by the command line's --wait, before there is a session; `discovery` does the same while one runs. A process that
was named and does not run yet comes with a program that starts.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from usdtkit.elf.image import Image
from usdtkit.errors import UsdtkitError
from usdtkit.mappings import EXEC, NEW_FILE, MappingStream
from usdtkit.maps import Mapping
from usdtkit.scan import open_mapped
from usdtkit.trace.later import Wanted, may_have
from usdtkit.trace.specs import FunctionSpec, UsdtSpec

TICK_S = 0.02
# To look for everything again takes long on a large machine. It may take this share of one processor's time.
SHARE = 0.2


class Arrival:
    """Hears of new files from the moment that it is made, so that none is missed between a search and `wait`."""

    def __init__(self, words: Sequence[int | str] = ()) -> None:
        """`words`: only what these processes map, and those that they start; none means all. Where one is a name, a
        program that starts anywhere counts as well. PrivilegeError."""
        pids = [word for word in words if isinstance(word, int)]
        self._awaits_programs = len(pids) < len(words)
        self._stream = MappingStream(NEW_FILE | (EXEC if self._awaits_programs else 0))
        for pid in () if self._awaits_programs else pids:
            self._stream.follow(pid)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._searched_at = time.monotonic()

    def wait(self, missing: Iterable[UsdtSpec | FunctionSpec], until: float | None) -> bool:
        """Wait for a file that has one of these, or without any, for a new file; until `until` (monotonic), if given.

        Returns whether there is one, and not for `stop` or the end of the time.
        """
        specs = list(missing)
        is_often = not specs or self._awaits_programs
        earliest = time.monotonic() + (time.monotonic() - self._searched_at) / SHARE if is_often else 0.0
        has_come = False
        with select.epoll() as poller:
            poller.register(self._stop, select.EPOLLIN)
            while until is None or time.monotonic() < until:
                for news in self._stream.take():
                    if news.kind & EXEC:
                        has_come = True
                        continue
                    mapping = Mapping(news.start, news.end, b"r-xp", news.offset, news.identity, news.name)
                    has_come = has_come or not specs or _has(specs, news.pid, mapping)
                if has_come and time.monotonic() >= earliest:
                    self._searched_at = time.monotonic()
                    return True
                if poller.poll(TICK_S):
                    return False
        return False

    def stop(self) -> None:
        """Let `wait` end. Safe in signal handlers."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Free everything."""
        self._stream.close()
        os.close(self._stop)


def _has(specs: Sequence[UsdtSpec | FunctionSpec], pid: int, mapping: Mapping) -> bool:
    """Whether a file that was mapped has anything of what is missing."""
    specs = [spec for spec in specs if may_have(spec, mapping.name)]
    if not specs:
        return False
    with suppress(UsdtkitError):
        for file in open_mapped(pid, mapping):
            with suppress(UsdtkitError), Image(file.path, file) as image:
                wanted = Wanted(image, mapping.name)
                if any(wanted.has(spec) for spec in specs):
                    return True
    return False
