"""Corrects semaphores that the kernel raises in the wrong place, in a command and in processes that start later.

Input: the sites that a session has attached to. Output: writes to the memory of traced processes, where a counter is
lower than the number of breakpoints that the kernel will count down from it. Without them such a program would never
fire its probes, and at the end the kernel would leave a breakpoint in the process rather than count below zero.
Processes that started before we attached are right already, and so is most software: `usdtkit.elf.loading` knows which
files mislead the kernel.

Nothing has to be undone. At the end, also after kill -9, the kernel lowers the counters that it finds.
"""

from __future__ import annotations

import _thread  # threading takes long to import
import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from usdtkit.elf.image import Image
from usdtkit.elf.loading import address_of, first_instructions, misleads_kernel, places_of_code, span
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import SitesByFile
from usdtkit.mappings import MAPPED, PAGE, MappingStream, identities
from usdtkit.maps import Identity, Mapping, mappings_in, maps_of
from usdtkit.processes import running_pids
from usdtkit.records import dataclass
from usdtkit.trace.stops import Stops

# How long to wait, from the moment that a process has mapped a file's code, for its data to be mapped too: that takes
# microseconds, unless the process sleeps. An event for it would cost time at every mapping of every process.
PATIENCE_S = 0.05
PAUSE_S = 0.0003
AT_A_TIME = 8  # processes that are looked at before new ones are; each takes 0.1 ms

Outcome = Literal["right", "raised", "early", "gone", "hidden", "denied"]


@dataclass(frozen=True)
class Counted:
    """One semaphore: its file offset, its virtual address, and the first byte of each of its sites by file offset."""

    offset: int
    address: int
    sites: dict[int, bytes]


@dataclass(frozen=True)
class Misleading:
    """A file whose semaphores the kernel may raise in the wrong place, and how to find them in a process."""

    file: OpenFile
    identity: Identity
    code: list[tuple[int, int]]
    span: tuple[int, int]
    counters: list[Counted]
    beginnings: list[int]

    @property
    def path(self) -> str:
        """The path of the file, for messages."""
        return self.file.path


def misleading_files(sites_by_file: SitesByFile) -> list[Misleading]:
    """The files whose semaphores must be corrected, of those that have these sites; most often none."""
    misleading = []
    for file, sites in sites_by_file.items():
        semaphores: dict[int, set[int]] = {}
        for site in sites.sites:
            if site.semaphore_offset:
                semaphores.setdefault(site.semaphore_offset, set()).add(site.file_offset)
        try:
            if semaphores and (problem := _misleading(Image(file.path, file), semaphores)) is not None:
                misleading.append(problem)
        except UsdtkitError:  # damaged since it was attached to
            continue
    return misleading


def _misleading(image: Image, semaphores: dict[int, set[int]]) -> Misleading | None:
    counters = []
    for offset, sites in semaphores.items():
        address = address_of(image, offset, writable=True)
        if address is not None and misleads_kernel(image, offset, sites, PAGE):
            counters.append(Counted(offset, address, {site: image.read(site, 1) for site in sites}))
    if not counters:
        return None
    (identity,) = identities([image.file.descriptor])
    if identity is None:
        return None
    return Misleading(
        image.file, identity, places_of_code(image, PAGE), span(image, PAGE), counters, first_instructions(image)
    )


def put_right(pid: int, file: Misleading) -> Outcome:
    """Raise the counters of a file in a process to the number that the kernel will count down from them.

    Returns "right" where they had it already, "raised", "early" where the process has not mapped all of the file yet,
    "gone" where the process or the file is not there any more, "hidden" where we may not see what the process maps, and
    "denied" where we may not write to its memory.
    """
    outcome: Outcome = "hidden"
    try:
        if not mappings_in(maps_of(pid), file.identity):
            return "gone"
        outcome = "denied"
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return outcome
    except OSError:
        return "gone"
    try:
        # Read again now that its memory is open, which stays that of the program that ran then if it begins another.
        mappings = mappings_in(maps_of(pid), file.identity)
        outcomes = {
            _raise(memory, [mapping for mapping in mappings if low <= mapping.start - bias < high], bias, counted)
            for bias in _biases(file, mappings)
            for low, high in [file.span]
            for counted in file.counters
        }
    except OSError:  # it has ended, or begun another program
        return "gone"
    finally:
        os.close(memory)
    return "early" if "early" in outcomes else "raised" if "raised" in outcomes else "right"


def _biases(file: Misleading, mappings: Sequence[Mapping]) -> set[int]:
    """The distances between addresses in the file and in the process, one for each time that it has loaded the file."""
    return {
        mapping.start - address
        for mapping in mappings
        for offset, address in file.code
        if mapping.is_executable and mapping.offset == offset
    }


def _raise(memory: int, mappings: Sequence[Mapping], bias: int, counted: Counted) -> Outcome:
    place = bias + counted.address
    if not any(mapping.is_writable and mapping.address(counted.offset) == place for mapping in mappings):
        return "early"
    breakpoints = 0
    for offset, original in counted.sites.items():
        for mapping in mappings:
            address = mapping.address(offset)
            breakpoints += address is not None and os.pread(memory, 1, address) != original
    if int.from_bytes(os.pread(memory, 2, place), "little") >= breakpoints:
        return "right"
    os.pwrite(memory, breakpoints.to_bytes(2, "little"), place)
    return "raised"


class Semaphores:
    """Keeps the semaphores of misleading files right while a session runs."""

    def __init__(self, files: Sequence[Misleading], pids: Sequence[int], stops: Stops | None) -> None:
        """`pids`: the processes; none means all. `stops`: of the process in `pids`, if it is a child of ours that has
        not begun yet and may be stopped."""
        self._files = {file.identity: file for file in files}
        self._unwatched = list(files)
        self._pids = frozenset(pids)
        self._denied: set[str] = set()
        self._early: dict[tuple[int, Identity], float] = {}  # until when to try again
        self._stream: MappingStream | None = None
        self._wake, self._over = os.eventfd(0, os.EFD_CLOEXEC), _thread.allocate_lock()
        self._stopping = False
        self.lines: list[str] = []
        self._tell: Callable[[str], object] = lambda line: None
        try:
            try:
                self._stream = MappingStream(wakes=True)
            except UsdtkitError as error:
                self._say(f"processes that start from now on may not be seen: {files[0].path}: {error.message}")
            places = {file.file: file.beginnings for file in files if file.beginnings}
            if stops is not None and places:
                stops.stop_at(places)
                stops.call(lambda pid: self.put_right([pid]))
        except BaseException:
            self.detach()
            raise

    def begin(self) -> None:
        """Look after the processes in threads. Call it after privileges are given up: threads would keep them."""
        if self._stream is not None:
            self._over.acquire()
            _thread.start_new_thread(self._run, (self._stream,))

    def add(self, files: Sequence[Misleading]) -> None:
        """Look after more files, to which the session has attached since."""
        self._files = self._files | {file.identity: file for file in files}
        self._unwatched += files
        os.eventfd_write(self._wake, 1)

    def follow(self, pid: int) -> None:
        """Look after one more process."""
        self._pids |= {pid}

    def tell(self, tell: Callable[[str], object]) -> None:
        """Call `tell` with each of `lines`, which say what cannot be done, perhaps from another thread."""
        self._tell = tell
        for line in self.lines:
            tell(line)

    def _say(self, line: str) -> None:
        self.lines.append(line)
        self._tell(line)

    def detach(self) -> None:
        """Correct what has come until now, and nothing after that."""
        if self._wake >= 0:
            self._stopping = True
            os.eventfd_write(self._wake, 1)
            with self._over:
                os.close(self._wake)
                self._wake = -1
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def put_right(self, pids: Iterable[int]) -> None:
        """Look at all files in these processes now."""
        for pid in pids:
            for identity in self._files:
                self._put_right(pid, identity)

    def _put_right(self, pid: int, identity: Identity, *, is_known: bool = False) -> None:
        """`is_known`: it is known that the process maps the file."""
        file = self._files[identity]
        outcome = put_right(pid, file)
        if (outcome == "denied" or (outcome == "hidden" and is_known)) and file.path not in self._denied:
            self._denied.add(file.path)
            self._say(
                f"process {pid} and those that start from now on are not traced: the kernel does not find "
                f"the semaphores of {file.path} in them, and writing them needs CAP_SYS_PTRACE"
            )
        if outcome == "early":
            self._early.setdefault((pid, identity), time.monotonic() + PATIENCE_S)
        else:
            self._early.pop((pid, identity), None)

    def _run(self, stream: MappingStream) -> None:
        try:
            with select.epoll() as poller:
                poller.register(self._wake, select.EPOLLIN | select.EPOLLET)
                poller.register(stream.fileno(), select.EPOLLIN)
                unseen: list[int] = []
                stopping = False
                while not stopping:
                    stopping = self._stopping  # what has come by now is looked at
                    if self._unwatched:
                        while self._unwatched:
                            stream.watch(self._unwatched.pop().identity)
                        unseen = self._everybody()
                    for news in stream.take():
                        if news.kind & MAPPED and (not self._pids or news.pid in self._pids):
                            self._put_right(news.pid, news.identity, is_known=True)
                    if stream.lost:
                        unseen = self._everybody()
                    self._try_again()
                    # Processes that ran before come last, a few at a time, because new ones cannot wait.
                    self.put_right(unseen[:AT_A_TIME])
                    del unseen[:AT_A_TIME]
                    if self._early and not unseen:
                        time.sleep(PAUSE_S)
                    if not stopping:
                        poller.poll(0 if unseen or self._early else None)
        finally:
            self._over.release()

    def _everybody(self) -> list[int]:
        return [*self._pids] or running_pids()

    def _try_again(self) -> None:
        for (pid, identity), until in list(self._early.items()):
            self._put_right(pid, identity)
            if time.monotonic() > until:
                self._early.pop((pid, identity), None)
