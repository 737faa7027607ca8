"""Checks that the processes which map a traced file really have the breakpoints, and finds out why if they do not.

Input: the sites that a session has attached to. Output: lines for people, and a number for the account. This module
decides when to look at which processes, and `breakpoints` looks at one process. Used by `presence`.
"""

from __future__ import annotations

import _thread  # threading takes long to import
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import islice

from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import SitesByFile
from usdtkit.mappings import identities
from usdtkit.maps import maps_of
from usdtkit.processes import running_pids
from usdtkit.records import dataclass
from usdtkit.trace.breakpoints import REMAPPED, AttachedFile, state_of

SHOWN = 5  # processes that a line names
MOST_FILES = 128  # files that are looked for in processes; each is kept open
# Up to this many processes are checked before the start is over, more in a thread: each takes 0.1 ms.
FEW = 8
# How long the check at the end may take if nothing came: enough for some thousand processes.
LAST_LOOK_S = 0.5

DANGER = "; a process that starts now would copy our breakpoints too, and be killed by them"
NOT_MAPPED = "it has not mapped the traced file"


@dataclass(frozen=True, slots=True)
class Unarmed:
    """Processes that run a traced file without its breakpoints, and the reason."""

    reason: str
    path: str
    pids: tuple[int, ...]

    @property
    def line(self) -> str:
        """A sentence that names the first few processes."""
        names = ", ".join(map(str, self.pids[:SHOWN]))
        others = f", … ({len(self.pids)} processes)" if len(self.pids) > SHOWN else ""
        return f"not armed in {names}{others}: {self.reason}: {self.path}"


class _Look:
    """The result of one check of the processes."""

    def __init__(self) -> None:
        self.unarmed: dict[tuple[str, str], list[int]] = {}
        self.armed = self.unreadable = 0
        self.is_whole = True


class Armed:
    """Checks the sites of a session: once when they are attached, and again before the session ends if nothing came."""

    def __init__(self, sites: SitesByFile, refused: Collection[tuple[str, int]], pids: Sequence[int]) -> None:
        """`refused`: sites that were not attached, by path and file offset. `pids`: the processes; none means all."""
        self._pids = pids
        self._files: list[AttachedFile] = []
        self._look = _Look()  # nothing has been checked yet
        self._look.is_whole = False
        self._tell: Callable[[str], object] | None = None
        self._reported: set[str] = set()
        self._stop = self._is_final = False
        self._over = _thread.allocate_lock()
        self._paths: list[str] = []
        self._knows_all = True
        self.add(sites, refused)

    def add(self, sites: SitesByFile, refused: Collection[tuple[str, int]] = ()) -> None:
        """Check these sites as well, from the next look on."""
        files = []
        for file, file_sites in islice(sites.items(), MOST_FILES - len(self._files)):
            offsets = {site.file_offset for site in file_sites.sites}
            if offsets := {offset for offset in offsets if (file.path, offset) not in refused}:
                files.append(AttachedFile(file, offsets))
        for attached, identity in zip(files, identities([file.descriptor for file in files]), strict=True):
            attached.identity = identity
        _find_shown(files)
        self._paths += [attached.path for attached in files]
        self._knows_all &= len(files) == len(sites) and all(attached.identity for attached in files)
        self._files += files

    def begin(self) -> None:
        """Look at a few processes at once, and at many in a thread, so that the start does not wait for them."""
        if self._is_final:
            return
        if self._pids and len(self._pids) <= FEW:
            self._take(self._pids, None)
            return
        self._over.acquire()
        _thread.start_new_thread(self._run, ())

    def look_for_good(self) -> None:
        """Look for the last time, because privileges are about to be given up."""
        with self._over:
            if not self._look.is_whole:
                self._take(self._who(), time.monotonic() + LAST_LOOK_S)
            self._is_final = True

    def look_again(self) -> None:
        """Look once more before a session ends that saw nothing: other processes may run now."""
        if self._is_final:
            return
        with self._over:
            self._take(self._who(), time.monotonic() + LAST_LOOK_S)

    def close(self) -> None:
        """Stop looking. What was found stays."""
        self._stop = True
        with self._over:
            self._files.clear()

    @property
    def unarmed(self) -> list[Unarmed]:
        """The processes without breakpoints that the latest look has found, by reason and file."""
        return [Unarmed(reason, path, tuple(pids)) for (reason, path), pids in list(self._look.unarmed.items())]

    @property
    def lines(self) -> list[str]:
        """What to report: a line for each reason and file, or the line that no process maps the traced file."""
        if unarmed := self.unarmed:
            return [line.line + (DANGER if line.reason == REMAPPED and not self._pids else "") for line in unarmed]
        if self._pids or self._look.armed or not self._look.is_whole or not self._knows_all or not self._paths:
            return []
        others = f" or any of {len(self._paths) - 1} other files" if len(self._paths) > 1 else ""
        unknown = f" ({self._look.unreadable} may not be inspected)" if self._look.unreadable else ""
        return [f"no running process maps {self._paths[0]}{others}; it is attached for those that start later{unknown}"]

    @property
    def doubts(self) -> list[str]:
        """What could not be seen of the processes that were given."""
        if not self._pids or not self._look.unreadable:
            return []
        return [
            f"whether {self._look.unreadable} of the processes have the probes cannot be seen without CAP_SYS_PTRACE"
        ]

    def tell(self, tell: Callable[[str], object]) -> None:
        """Call `tell` with each line once, from the thread that finds it."""
        self._tell = tell
        self._say()

    def _say(self) -> None:
        if self._tell is not None:
            for line in self.lines:
                if line not in self._reported:
                    self._reported.add(line)
                    self._tell(line)

    def _run(self) -> None:
        try:
            self._take(self._who(), None)
        finally:
            self._over.release()

    def _who(self) -> Sequence[int]:
        return self._pids or (running_pids() if any(file.identity for file in self._files) else ())

    def _take(self, pids: Sequence[int], until: float | None) -> None:
        look = _Look()
        for pid in pids:
            if self._stop or (until is not None and time.monotonic() > until):
                look.is_whole = False
                break
            try:
                self._look_at(pid, look)
            except PermissionError:
                look.unreadable += 1
            except OSError:  # it has ended
                continue
        self._look = look
        self._say()

    def _look_at(self, pid: int, look: _Look) -> None:
        states = self._states(pid)
        if any(states.values()):
            # A second time, because a process that is ending or beginning another program shows anything.
            again = self._states(pid)
            states = {path: reason for path, reason in states.items() if again.get(path) == reason}
        for path, reason in states.items():
            if reason:
                look.unarmed.setdefault((reason, path), []).append(pid)
            else:
                look.armed += 1

    def _states(self, pid: int) -> dict[str, str]:
        """Why a file that the process runs is not armed there, by its path; "" where it is armed."""
        maps = maps_of(pid)
        states: dict[str, str] = {}
        for file in self._files:
            state = state_of(pid, maps, file)
            if state is not None:
                states[file.path] = state
        if maps and not states and self._pids and self._files:
            states[self._files[0].path] = NOT_MAPPED
        return states


def _find_shown(files: Sequence[AttachedFile]) -> None:
    """Find out what processes show that they map, where an overlay file system shows a file of its own.

    The kernel attaches to the file below the overlay, which is another inode.
    """
    for attached in files:
        with suppress(UsdtkitError):  # the path has gone, so nothing but the file itself can be mapped
            overlaid = OpenFile.open(attached.path)
            if overlaid != attached.file:
                (attached.shown,) = identities([overlaid.descriptor])
