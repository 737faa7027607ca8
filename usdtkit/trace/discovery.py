"""Attaches a running session to what starts later: new files, containers, and the processes that its processes start.

Input: `mappings.MappingStream`, `kernel.taskmaps.TaskMappings`, and what `later` finds in a file. Output: calls of
`running`, which attaches, and an account of what could not be looked at. Used by `running`.

The kernel arms a file for every process that maps it later, so only files that nobody mapped before need a look. There
are few: a program that starts brings its libraries, which are known. A thread waits for news of the stream, which is
read some dozen times a second without Python. First it looks at all files that are mapped, and again after the stream
has lost something.
"""

from __future__ import annotations

import _thread  # threading takes long to import
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Protocol

from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.taskmaps import TaskMapping, TaskMappings
from usdtkit.mappings import EXIT, FORK, MAPPED, NEW_FILE, MappingStream, News
from usdtkit.maps import Identity, Mapping, mapping_at, maps_of
from usdtkit.overlays import forget_mounts
from usdtkit.privatedirs import stranger, user_name
from usdtkit.processes import running_pids, runs, user_of
from usdtkit.scan import Scan, as_seen_by, open_mapped, open_target
from usdtkit.trace.later import Found, Later, Wanted

if TYPE_CHECKING:
    from usdtkit.trace.learning import Learning

# Between two looks at the stream: for children, which cannot be attached to before they run; while something happens
# and in the first seconds; and else.
CHILDREN_S, BUSY_S, CALM_S, YOUNG_S = 0.005, 0.02, 0.05, 5.0
CALM_FOR_S = 600.0  # the looks of so long are made without Python, if there is nothing new
LEARNING_FOR_S = 1.0  # and of so long if another thread may have processes to watch
# A flood of new files, or of processes, must not take the machine: so long a look takes, and so much may wait.
LOOK_S = 0.01
MOST_WAITING = 4096
LOOK_AROUND_S = 1.0  # at least, between two looks at everything
AGAIN = 3  # times that a file is tried that could not be opened
NAMED = 100  # files that are named when they are found


class Attaching(Protocol):
    """What a session lets discovery do."""

    def extend(self, found: Found) -> int:
        """Attach to more places; how many sites that were."""

    def follow(self, pid: int) -> None:
        """Attach everything in one more process."""

    def leave(self, pid: int) -> None:
        """Let go of a process that has ended."""


class Discovery:
    """The thread that follows what starts. Its account is readable at any time."""

    def __init__(
        self,
        attaching: Attaching,
        later: Later,
        attached: Iterable[OpenFile],
        pids: Sequence[int],
        remark: Callable[[str], object],
        *,
        follows: bool,
        learning: Learning | None = None,
    ) -> None:
        """`attached`: the files that are attached to already. `pids`: the processes whose files are looked at, and if
        it `follows` them, those of their children; none means everything. `remark` is told what is found, in the
        thread. `learning` is told of processes that map a traced file, or whose stacks are known and map anything.
        PrivilegeError."""
        self._attaching, self._later, self._remark = attaching, later, remark
        self._pids = tuple(pids)
        self._known = {file.version for file in attached}  # files that were looked at
        self._real: set[tuple[int, ...]] = set()  # attached to, by what the kernel says
        self._waiting: dict[int, deque[tuple[int, Mapping, News | None]]] = {}  # by the user who mapped them
        self._children: deque[int] = deque()
        self._tries: dict[Identity, int] = {}
        self._watched: set[int] = set()  # processes
        self._look_around_at = 0.0
        self._named = 0
        self.unlooked = 0
        """Files and processes that there was no time to look at."""
        self.unreachable: dict[str, int] = {}
        """Files that could not be opened, by the reason."""
        self.lost = 0
        """Records of mappings that were lost; everything was looked at once more then."""
        self._stop, self._over = os.eventfd(0, os.EFD_CLOEXEC), _thread.allocate_lock()
        self._closing = ExitStack()
        self._follows = follows
        kinds = NEW_FILE | (FORK | EXIT if follows else 0)
        self._stream = MappingStream(kinds)
        self._closing.callback(self._stream.close)
        for pid in pids:
            self._stream.follow(pid)
        self._learning = learning
        for identity in () if learning is None else learning.files:
            self._stream.watch(identity)
        self._is_woken = follows and self._wakes_for(pids)
        self._tasks: TaskMappings | None = None
        self._has_begun = False

    def begin(self) -> None:
        """Follow from now on. What has happened since the constructor is seen too."""
        self._has_begun = True
        self._over.acquire()
        _thread.start_new_thread(self._run, ())

    def end(self) -> None:
        """Attach to nothing any more; a second time does nothing."""
        if self._stop < 0:
            return
        os.eventfd_write(self._stop, 1)
        with self._over:
            os.close(self._stop)
            self._stop = -1
        self._closing.close()

    def lines(self) -> list[str]:
        """What could not be looked at, for people."""
        lines = [f"{count} new files could not be opened: {reason}" for reason, count in self.unreachable.items()]
        if self.unlooked:
            lines.append(f"{self.unlooked:,} new files or processes came too fast, and were not looked at")
        return lines

    @property
    def not_looked_at(self) -> int:
        """How many new files or processes were not looked at, for whatever reason."""
        return self.unlooked + sum(self.unreachable.values())

    def _run(self) -> None:
        try:
            began = time.monotonic()
            if not self._pids:  # whose files were searched just now
                self._look_around()
            pause, rounds = self._pause(is_young=True), 1
            self._watch_known()
            while (all_news := self._stream.wait(self._stop, pause, rounds)) is not None:
                is_busy = self._tick(all_news)
                young = YOUNG_S - (time.monotonic() - began)
                pause = self._pause(is_young=is_busy or young > 0)
                longest = CALM_FOR_S if self._learning is None else LEARNING_FOR_S
                rounds = 1 if is_busy else int(min(young if young > 0 else longest, longest) / pause) + 1
        except UsdtkitError as error:
            self._remark(f"what starts from now on is not traced: {error.message}")
        finally:
            self._over.release()

    def _wakes_for(self, pids: Sequence[int]) -> bool:
        """Whether the start of a child wakes us."""
        try:
            return self._stream.wake_for(pids)
        except UsdtkitError:  # such as a process that has ended
            return False

    def _pause(self, *, is_young: bool) -> float:
        if self._follows and not self._is_woken:
            return CHILDREN_S
        return BUSY_S if is_young else CALM_S

    def _tick(self, all_news: Sequence[News]) -> bool:
        """Look at what is new; whether there was anything, or more is to be done."""
        self._watch_known()
        for news in all_news:
            if news.kind & MAPPED and self._learning is not None:
                self._watch(news.pid)  # before it is looked at, so that no mapping is missed
                self._learning.ask(news.pid)
            if news.kind & NEW_FILE:
                mapping = Mapping(news.start, news.end, b"r-xp", news.offset, news.identity, news.name)
                self._wait(news.pid, mapping, news)
            elif news.kind & FORK:
                self._children.append(news.pid)
            elif news.kind & EXIT:
                self._watched.discard(news.pid)
                if news.pid not in self._pids:
                    self._attaching.leave(news.pid)
        if self._stream.lost:
            self.lost += self._stream.lost
            self._look_around_at = self._look_around_at or time.monotonic()
        if self._look_around_at and time.monotonic() >= self._look_around_at:
            self._look_around()
        if self._waiting:
            forget_mounts()  # there may be new ones
        until = time.monotonic() + LOOK_S
        self._follow(until)
        self._work(until)
        return bool(all_news or self._waiting or self._children or self._look_around_at)

    def _watch_known(self) -> None:
        """Listen to what processes map that were looked at for their stacks, and look at what they mapped meanwhile."""
        while self._learning is not None and self._learning.fresh:
            pid = self._learning.fresh.popleft()
            if self._watch(pid):
                self._learning.ask(pid)

    def _watch(self, pid: int) -> bool:
        """Listen to what a process maps; whether that is new."""
        if pid in self._watched:
            return False
        if len(self._watched) >= MOST_WAITING:
            self._watched.clear()
        self._watched.add(pid)
        self._stream.watch_process(pid)
        return True

    def _wait(self, pid: int, mapping: Mapping, news: News | None) -> None:
        if not self._later.may_have(mapping.name):
            return
        try:
            user = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 thousands of them, where pathlib's cost shows
        except OSError:
            user = -1
        waiting = self._waiting.setdefault(user, deque())
        if len(waiting) < MOST_WAITING:
            waiting.append((pid, mapping, news))
        else:
            self.unlooked += 1

    def _follow(self, until: float) -> None:
        """Attach in the children that still run."""
        while self._children and time.monotonic() < until:
            if runs(pid := self._children.popleft()):
                self._attaching.follow(pid)
        while len(self._children) > MOST_WAITING:
            self._children.pop()
            self.unlooked += 1

    def _work(self, until: float) -> None:
        """Look at the files that wait, those of each user in turn, so that no user's flood hides another's file."""
        while self._waiting and time.monotonic() < until:
            for user in list(self._waiting):
                pid, mapping, news = self._waiting[user].popleft()
                if not self._waiting[user]:
                    del self._waiting[user]
                self._look_at(pid, mapping, news)

    def _look_at(self, pid: int, mapping: Mapping, news: News | None) -> None:
        try:
            files = open_mapped(pid, mapping)
        except PrivilegeError:
            self._unreachable("it takes CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE", mapping)
            self._again(mapping, news)
            return
        except NotFoundError:  # the process has ended, and who else had the file cannot be known
            self._again(mapping, news)
            return
        except UsdtkitError:
            return
        for file in files:
            if not self._look_into(file, mapping.name, pid, mapping if len(files) == 1 else None) and news is not None:
                self._stream.forget(news)

    def _look_into(self, file: OpenFile, name: str, pid: int, mapping: Mapping | None = None) -> bool:
        """Attach to what is sought in a file, unless it was looked into before.

        With the only `mapping` that may be of the file, also unless that is attached to already. Returns False if the
        file counts only for its owner's processes, of which this one is none: the next process that maps it may be.
        """
        if file.version in self._known:
            return True
        self._known.add(file.version)
        try:
            with Image(file.path, file) as image:
                found = self._later.search(Wanted(image, name))
        except (ElfError, NotFoundError, PrivilegeError):  # no ELF file, or damaged
            return True
        if not found.places:
            return True
        if not _is_trusted(file, pid):
            self._known.discard(file.version)
            return False
        if mapping is None or not self._is_attached(pid, mapping, file):
            self._attach(found, file, pid)
        return True

    def _attach(self, found: Found, file: OpenFile, pid: int) -> None:
        try:
            sites = self._attaching.extend(found)
        except UsdtkitError as error:
            self._remark(f"not traced: {file.path}: {error.message}")
            return
        if sites and self._learning is not None:
            for identity in self._learning.add([file]):
                self._stream.watch(identity)
            self._learning.ask(pid)
        if sites and self._named < NAMED:
            self._named += 1
            owner = stranger(file.path)
            whose = "" if owner is None else f" (belongs to {user_name(owner)})"
            self._remark(f"found {file.path}{whose}, which process {pid} maps")
            for remark in found.remarks:
                self._remark(remark)

    def _is_attached(self, pid: int, mapping: Mapping, file: OpenFile) -> bool:
        """Whether the inode that the process runs is attached to already, where an overlay hides which one it is."""
        for task in () if self._tasks is None else self._tasks.of(pid):
            if task.start <= mapping.start < task.end:
                if (os.makedev(task.major, task.minor), task.inode) == file.key:
                    return False
                is_attached = task.key in self._real
                self._real.add(task.key)
                return is_attached
        return False

    def _unreachable(self, reason: str, mapping: Mapping) -> None:
        if mapping.identity not in self._tries:
            self.unreachable[reason] = self.unreachable.get(reason, 0) + 1

    def _again(self, mapping: Mapping, news: News | None) -> None:
        """Try again when it is mapped the next time, but not for ever."""
        if len(self._tries) >= MOST_WAITING:
            self._tries.clear()
        tries = self._tries[mapping.identity] = self._tries.get(mapping.identity, 0) + 1
        if tries < AGAIN and news is not None:
            self._stream.forget(news)

    def _look_around(self) -> None:
        """Look at every file that is mapped, except those that were looked at."""
        self._look_around_at = 0.0
        try:
            if self._tasks is None:
                self._tasks = TaskMappings()
                self._closing.callback(self._tasks.close)
        except UsdtkitError:  # the kernel has no such iterator
            self._scan()
            return
        tasks = [task for pid in self._pids for task in self._tasks.of(pid)] if self._pids else self._tasks.fresh()
        for task in tasks:
            self._wait(task.pid, _mapping(task), None)

    def _scan(self) -> None:
        scan = Scan()
        for pid in self._pids or running_pids():
            try:
                scan.add(pid)
            except (NotFoundError, PrivilegeError):
                continue
        for target in scan.targets():
            if not self._later.may_have(target.name):
                continue
            with suppress(UsdtkitError):
                for file in open_target(target):
                    self._look_into(file, target.name, target.pids[0])


def _mapping(task: TaskMapping) -> Mapping:
    """The mapping as /proc has it, by the name that the process knows. The iterator does not say the name."""
    identity = Identity(task.major, task.minor, task.inode)
    mapping = Mapping(task.start, task.end, b"r-xp", task.offset, identity, "")
    try:
        mapping = mapping._replace(name=os.readlink(f"/proc/{task.pid}/map_files/{mapping.span}"))  # noqa: PTH115
    except OSError:  # it is not allowed, or the mapping has changed meanwhile
        with suppress(OSError):
            mapping = mapping_at(maps_of(task.pid), task.start) or mapping
    with suppress(OSError):
        root = os.readlink(f"/proc/{task.pid}/root")  # noqa: PTH115
        mapping = mapping._replace(name=as_seen_by(root, mapping.name))
    return mapping


def _is_trusted(file: OpenFile, pid: int) -> bool:
    """Whether a file is what it says: one in a directory of provider files that belongs to another user only if a
    process of that user, of root or of ours maps it; see `targets.everything`."""
    directory = file.path.rpartition("/")[0]
    owner = stranger(directory)
    if owner is None:
        owner = stranger(file.path)
    if owner is None:
        return True
    from usdtkit.directories import provider_directories  # lazy: it imports pathlib, and strangers' files are rare

    if directory not in map(str, provider_directories()):
        return True
    return user_of(pid) in (owner, 0, os.geteuid())
