"""Whether what is attached is really in force in the processes, for one session: its armed check, its semaphores, its
command.

Input: the sites that `session` has attached to. Output: lines for people, the processes that are not traced, and how a
command ended. `armed` and `semaphores` do the work; the latter is only loaded for sites that have any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from usdtkit.errors import UnsupportedError
from usdtkit.kernel.attach.sites import Refusal, SitesByFile
from usdtkit.trace.armed import Armed, Unarmed
from usdtkit.trace.command import Command

if TYPE_CHECKING:
    from usdtkit.trace.semaphores import Semaphores

# What makes a program copy its own code to huge pages when it starts: an option of node, and a setting of PHP.
COPYING = ("--use-largepages=on", "--use-largepages=silent", "opcache.huge_code_pages=1")


class Presence:
    """What a session has in the processes themselves, from its attachment to its end."""

    def __init__(self, pids: Sequence[int], command: Command | None, method: str | None) -> None:
        """`pids`: where the session traces; without any, everywhere. `command`: the child that it has started, if any.
        `method` as `bpf.links.Links` has it."""
        self._pids = pids
        self._command = command
        self._method = method
        self._armed: Armed | None = None
        self._semaphores: Semaphores | None = None
        self._has_begun = False

    def attaching(self, sites: SitesByFile) -> None:
        """The session is about to attach. UnsupportedError where that would kill its command."""
        if self._command is not None:
            refuse_copying(self._command.program, self._command.words, {file.path for file in sites})

    def attached(self, sites: SitesByFile, refused: Collection[Refusal]) -> None:
        """The session has attached to these sites, but for those refused, for the first time."""
        self._armed = Armed(sites, {(one.path, one.file_offset) for one in refused}, self._pids)
        self.extended(sites)

    def extended(self, sites: SitesByFile) -> None:
        """The session has attached to these sites."""
        if not any(one.semaphore_offset for file in sites.values() for one in file.sites):
            return
        from usdtkit.trace.semaphores import Semaphores, misleading_files  # what functions do without

        files = misleading_files(sites)
        if files and self._semaphores is not None:
            self._semaphores.add(files)
        elif files:
            self._semaphores = Semaphores(files, self._pids, self._command is not None, self._method)
            if self._has_begun:
                self._semaphores.begin()

    def before_drop(self) -> None:
        """Privileges are about to be given up: look at the processes now. A command has not begun yet."""
        if self._armed is not None and self._command is None:
            self._armed.look_for_good()

    def begin(self) -> None:
        """Look after the processes from now on, and let the command go. Not before privileges are dropped, which the
        threads that do it would keep."""
        self._has_begun = True
        if self._semaphores is not None:
            self._semaphores.begin()
        if self._command is not None:
            self._command.go(stoppable=self._semaphores is not None)
        elif self._armed is not None:
            self._armed.begin()

    def detach(self, *, nothing_came: bool) -> None:
        """Before the session detaches: stop writing to processes, and look once more where nothing came."""
        if self._armed is not None:
            if nothing_came and self._has_begun:
                self._armed.look_again()
            self._armed.close()
        if self._semaphores is not None:
            self._semaphores.detach()

    def close(self) -> None:
        """End the command, and free everything."""
        if self._command is not None:
            self._command.close()
        if self._semaphores is not None:
            self._semaphores.close()

    def tell(self, tell: Callable[[str], object]) -> None:
        """Call `tell` with a line for each reason why a process is not traced, now or as soon as it is known: perhaps
        in another thread."""
        for part in (self._armed, self._semaphores):
            if part is not None:
                part.tell(tell)

    @property
    def unarmed(self) -> list[Unarmed]:
        """Processes that run what is traced but have no breakpoints there, by reason and file, as the latest look has
        found: that after the start, or, where nothing came, that before the end."""
        return [] if self._armed is None else self._armed.unarmed

    def reasons(self) -> list[str]:
        """Why nothing came, as far as that is known; often nothing. To be asked before `close`."""
        reasons = [] if self._armed is None else [*self._armed.lines, *self._armed.doubts]
        if self._semaphores is not None:
            reasons += self._semaphores.lines
        if self._command is not None and self._command.has_started_others():
            reasons.append("the command has started other processes, and only its own is traced")
        return reasons

    @property
    def command_status(self) -> int | None:
        """How the command ended by itself: its exit status, or the negative number of the signal; None of none."""
        return None if self._command is None else self._command.status

    def account(self) -> dict[str, Any]:
        """What a summary has of this."""
        return {
            "unarmed": len({pid for one in self.unarmed for pid in one.pids}),
            "command_status": self.command_status,
        }


def refuse_copying(program: str, words: Sequence[str], paths: Collection[str]) -> None:
    """Raise UnsupportedError where a command would copy its code, with our breakpoints in it, and be killed by them.

    Nothing in the kernel prevents that: a breakpoint works only where it was put.
    """
    asked = [*words[1:], *os.environ.get("NODE_OPTIONS", "").split()]
    found = next((word for word in asked if word.endswith(COPYING)), None)
    if found is not None and os.path.realpath(program) in map(os.path.realpath, paths):
        raise UnsupportedError(
            f"{program} copies its code to huge pages ({found}), and breakpoints in the copy would kill it",
            hint="leave that out while you trace it, or trace its libraries",
        )
