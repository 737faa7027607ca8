"""The part of a session that concerns the traced processes: checks for breakpoints, semaphores, the command.

Input: the sites that `session` has attached to. Output: lines for people, the processes that are not traced, and how
the command ended. `armed`, `semaphores` and `loaders` do the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from usdtkit.errors import UnsupportedError, UsdtkitError

if TYPE_CHECKING:
    from usdtkit.kernel.attach.sites import Refusal, SitesByFile
    from usdtkit.trace.armed import Armed, Unarmed
    from usdtkit.trace.command import Command
    from usdtkit.trace.semaphores import Semaphores
    from usdtkit.trace.stops import Stops

# Options of node, and a setting of PHP, with which they copy their own code to huge pages when they start.
COPYING = ("--use-largepages=on", "--use-largepages=silent", "opcache.huge_code_pages=1")


class Presence:
    """The breakpoint checks, semaphores and command of a session, from its attachment to its end."""

    def __init__(
        self, pids: Sequence[int], command: Command | None, method: str | None, *, follows: bool = False
    ) -> None:
        """`pids`: the processes that the session traces; none means all. `command`: the child that it has started, if
        any. `method`: as `usdtkit.kernel.attach.links.Links` has it. `follows`: whether children are traced too."""
        self._follows = follows
        self._pids = pids
        self.command = command
        """The child that the session has started, if any."""
        self._method = method
        self._armed: Armed | None = None
        self._semaphores: Semaphores | None = None
        self._stops: Stops | None = None
        self._has_begun = False

    def attaching(self, sites: SitesByFile) -> None:
        """To be called before the session attaches. UnsupportedError where breakpoints would kill its command."""
        if self.command is not None:
            refuse_copying(self.command.program, self.command.words, {file.path for file in sites})

    def attached(self, sites: SitesByFile, refused: Collection[Refusal]) -> None:
        """To be called when the session has attached for the first time, to these sites without those `refused`."""
        from usdtkit.trace.armed import Armed  # lazy: 0.8 ms, and neither help nor --explain attaches

        self._armed = Armed(sites, {(refusal.path, refusal.file_offset) for refusal in refused}, self._pids)
        self._correct(sites)

    def extended(self, sites: SitesByFile) -> None:
        """To be called when the session has attached to these sites as well."""
        if self._armed is not None:
            self._armed.add(sites)
        self._correct(sites)

    def follow(self, pid: int) -> None:
        """To be called when the session has attached in one more process."""
        if self._semaphores is not None:
            self._semaphores.follow(pid)

    def _correct(self, sites: SitesByFile) -> None:
        """Look after the semaphores of these sites, where that is needed."""
        if not any(site.semaphore_offset for file_sites in sites.values() for site in file_sites.sites):
            return
        from usdtkit.trace.semaphores import Semaphores, misleading_files  # functions have no semaphores

        files = misleading_files(sites)
        if files and self._semaphores is not None:
            self._semaphores.add(files)
        elif files:
            self._semaphores = Semaphores(files, self._pids, self._stops_of_command())
            if self._has_begun:
                self._semaphores.begin()

    def learn_command(self, learn: Callable[[int], object]) -> bool:
        """Call `learn` with the process of the command, if there is one, before code runs that it has newly mapped.
        Returns whether that will be done."""
        stops = self._stops_of_command()
        if stops is None:
            return False
        from usdtkit.trace.loaders import Loaders  # lazy: few sessions have a command and take stacks

        with suppress(UsdtkitError):
            Loaders(stops, learn)
            return True
        return False

    def _stops_of_command(self) -> Stops | None:
        """What stops the command for a moment, if there is one."""
        if self._stops is None and self.command is not None:
            from usdtkit.trace.stops import Stops  # lazy: few commands have to be stopped

            self._stops = Stops(self.command.pid, self._method)
            if self._has_begun:
                self._stops.begin()
        return self._stops

    def before_drop(self) -> None:
        """To be called before privileges are given up: look at the processes now. A command has not begun yet."""
        if self._armed is not None and self.command is None:
            self._armed.look_for_good()

    def begin(self) -> None:
        """Look after the processes from now on, and let the command run.

        To be called after privileges were given up, because threads that were started before would keep them.
        """
        self._has_begun = True
        if self._stops is not None:
            self._stops.begin()
        if self.command is not None:
            self.command.go(stoppable=self._stops is not None)
        elif self._armed is not None:
            self._armed.begin()
        if self._semaphores is not None:  # it has listened from the start
            self._semaphores.begin()

    def detach(self, *, nothing_came: bool) -> None:
        """To be called before the session detaches: stop writing to processes, and look once more if nothing came."""
        if self._armed is not None:
            if nothing_came and self._has_begun:
                self._armed.look_again()
            self._armed.close()
        if self._stops is not None:
            self._stops.detach()
        if self._semaphores is not None:
            self._semaphores.detach()

    def close(self) -> None:
        """End the command and free everything."""
        if self.command is not None:
            self.command.close()
        if self._stops is not None:
            self._stops.close()

    def tell(self, tell: Callable[[str], object]) -> None:
        """Call `tell` with a line for each reason why a process is not traced, as soon as it is known.

        The call may come from another thread.
        """
        for part in (self._armed, self._semaphores):
            if part is not None:
                part.tell(tell)

    @property
    def unarmed(self) -> list[Unarmed]:
        """Processes that run a traced file but have no breakpoints in it, by reason and file.

        The session looks for them after its start, and again before its end if nothing came.
        """
        return [] if self._armed is None else self._armed.unarmed

    def reasons(self) -> list[str]:
        """Known reasons why no event arrived: lines for people, often none. Call this before `close`."""
        reasons = [] if self._armed is None else [*self._armed.lines, *self._armed.doubts]
        if self._semaphores is not None:
            reasons += self._semaphores.lines
        if self.command is not None and self.command.has_started_others():
            which = (
                "which are traced from some milliseconds after their start"
                if self._follows
                else "but only the process of the command is traced"
            )
            reasons.append(f"the command has started other processes, {which}")
        return reasons

    @property
    def command_status(self) -> int | None:
        """How the command ended by itself: its exit status, or the negative number of a signal. None without one."""
        return None if self.command is None else self.command.status

    def account(self) -> dict[str, Any]:
        """The fields of a `Summary` that are known here."""
        return {
            "unarmed": len({pid for unarmed in self.unarmed for pid in unarmed.pids}),
            "command_status": self.command_status,
        }


def refuse_copying(program: str, words: Sequence[str], paths: Collection[str]) -> None:
    """Raise UnsupportedError where a command would copy its code together with our breakpoints, and be killed by them.

    A breakpoint works only at the address where the kernel has put it, and the kernel does not prevent such copies.
    """
    options = [*words[1:], *os.environ.get("NODE_OPTIONS", "").split()]
    copying = next((word for word in options if word.endswith(COPYING)), None)
    if copying is not None and os.path.realpath(program) in map(os.path.realpath, paths):
        raise UnsupportedError(
            f"{program} copies its code to huge pages ({copying}), and breakpoints in the copy would kill it",
            hint="start it without that while you trace it, or trace its libraries",
        )
