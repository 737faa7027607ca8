"""All attachments of a session: chooses the way to attach, and holds the descriptors until it is closed.

Input: a `Loaded` program, sites by file, processes, and places of the kernel. Output: how many sites were attached, and
those that the kernel refused. The kernel raises the semaphores of sites when it attaches, and lowers them again.
"""

from __future__ import annotations

import _thread  # threading takes longer to import than it takes to detach
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol

from usdtkit.errors import NotFoundError, UnsupportedError, UsageError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import Attached, AttachStep, KernelSite, Refusal, SitesByFile
from usdtkit.kernel.features import has_uprobe_multi
from usdtkit.kernel.load import Loaded
from usdtkit.kernel.mounts import leave_mount
from usdtkit.model import Clock, Tracepoint

METHODS = ("uprobe_multi", "perf_link", "perf_ioctl")
"""Ways to attach to sites, the best first: since Linux 6.6, 5.15 and 4.20."""


MOST_LEFT = 64  # descriptors of processes that have ended


class UprobeMethod(Protocol):
    """A way to attach programs to sites in files."""

    method: str

    def prepare(self, sites: SitesByFile) -> list[AttachStep]:
        """Do what comes before attaching, and return what is to be attached."""


class KernelAttachment(Protocol):
    """A way to attach one program to one place of the kernel."""

    def load(self) -> None:
        """Load the program; this may run in another thread."""

    def attach(self, attached: Attached) -> None:
        """Attach, and add the descriptors to what is `attached`."""


def attachment_to(loaded: Loaded, site: KernelSite, pids: Sequence[int]) -> KernelAttachment:
    """The way to attach to a place of the kernel, by its kind. A module is imported when a session has such a place.

    `pids` are the processes that the session traces; (0,) stands for all.
    """
    match site.place:
        case Tracepoint() as tracepoint:
            from usdtkit.kernel.attach.tracepoint import RawTracepoint

            return RawTracepoint(loaded, site.program, tracepoint)
        case Clock() as clock:
            from usdtkit.kernel.attach.clock import ClockEvents

            return ClockEvents(loaded, site.program, clock, site.cookie, pids)


class Links:
    """All attachments of a session. `close` detaches everything."""

    def __init__(self, loaded: Loaded, method: str | None = None) -> None:
        """`method`: one of METHODS, or None for the first that the kernel has. UsageError, UnsupportedError."""
        if method not in (None, *METHODS):
            raise UsageError(f"{method!r} is not a method of attaching", hint=f"one of {', '.join(METHODS)}")
        if method == "uprobe_multi" and not has_uprobe_multi():
            raise UnsupportedError(
                "this kernel has no uprobe_multi, or does not let us use it",
                hint="leave the method out to use the best one that is available; usdtkit doctor shows which that is",
            )
        self._loaded = loaded
        self._attached = Attached()
        self._of_process: dict[int, list[int]] = {}
        self._left: list[int] = []
        self._uprobes = self._uprobe_method(method or ("uprobe_multi" if has_uprobe_multi() else "perf_link"))

    def _uprobe_method(self, method: str) -> UprobeMethod:
        if method == "uprobe_multi":
            from usdtkit.kernel.attach.uprobe_multi import UprobeMulti

            return UprobeMulti(self._loaded, self._attached)
        from usdtkit.kernel.attach.uprobe import UprobeEvents

        return UprobeEvents(self._loaded, self._attached, method)

    @property
    def method(self) -> str:
        """The one of METHODS that is used. Where the kernel has no perf links, attaching finds that out."""
        return self._uprobes.method

    @property
    def refused(self) -> list[Refusal]:
        """The sites that the kernel refused, once for each process."""
        return self._attached.refused

    def attach(
        self,
        sites: SitesByFile,
        pids: Sequence[int] = (0,),
        kernel_sites: Sequence[KernelSite] = (),
    ) -> int:
        """Attach programs to sites in these processes (0: in every one, present and future), and in the kernel.

        Returns how many sites in files were attached; the others are in `refused`. Raises for failures that are not
        one site's fault, and for each of the `kernel_sites` that cannot be attached to.
        """
        attachments = [attachment_to(self._loaded, site, pids) for site in kernel_sites]

        def load() -> None:
            for attachment in attachments:
                attachment.load()

        with _in_another_thread(load):
            steps = self._uprobes.prepare(sites)
        for attachment in attachments:
            attachment.attach(self._attached)
        for file, file_sites in sites.items():
            # Each handle of a file that was found twice would keep its mount busy.
            for handle in {id(handle): handle for handle in (file, *file_sites.handles)}.values():
                leave_mount(handle)
        return self._attach_steps(sites, steps, pids)

    def attach_in(self, pid: int, sites: SitesByFile, kernel_sites: Sequence[KernelSite] = ()) -> None:
        """Attach in one more process to what is attached in others; nothing where it has ended. `leave` lets it go."""
        before = len(self._attached.descriptors)
        try:
            self._attach_steps(sites, self._uprobes.prepare(sites), (pid,))
            for site in kernel_sites:
                attachment_to(self._loaded, site, (pid,)).attach(self._attached)
        except NotFoundError:
            pass
        self._of_process[pid] = self._attached.descriptors[before:]

    def leave(self, pid: int) -> None:
        """Let go of a process that has ended, which costs nothing now: the kernel's waits are shared by many."""
        self._left += self._of_process.pop(pid, ())
        if len(self._left) >= MOST_LEFT:
            left = set(self._left)
            self._attached.descriptors = [each for each in self._attached.descriptors if each not in left]
            _close(self._left)

    def _attach_steps(self, sites: SitesByFile, steps: Sequence[AttachStep], pids: Sequence[int]) -> int:
        counts = dict.fromkeys(sites, 0)
        held: dict[OpenFile, list[int]] = {file: [] for file in sites}
        steps = [step for step in steps if not step.file.is_rewritten]
        ended: list[NotFoundError] = []
        for pid in pids:
            try:
                for file, attach in steps:
                    before = len(self._attached.descriptors)
                    counts[file] += attach(pid)
                    held[file] += self._attached.descriptors[before:]
            except NotFoundError as error:  # the others go on
                ended.append(error)
        if ended:
            if len(ended) == len(pids):
                raise ended[0]
            import logging  # its import takes long, and processes rarely end just now

            logging.getLogger(__name__).warning("left out: %s", "; ".join(error.message for error in ended))
        for file in sites:
            if file.is_rewritten:  # its offsets may mean anything now
                self._attached.give_up(file, sites[file], held[file])
                counts[file] = 0
        return sum(counts.values())

    def close(self) -> None:
        """Detach. For each descriptor the kernel waits until no thread is in its probes; these waits overlap."""
        _close(self._attached.descriptors)


def _close(descriptors: list[int]) -> None:
    with ExitStack() as closing:
        while len(descriptors) > 1:
            closing.enter_context(_in_another_thread(partial(os.close, descriptors.pop())))
        if descriptors:
            os.close(descriptors.pop())


@contextmanager
def _in_another_thread(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a thread of its own beside the block; at the end of the block it is done, or its error is raised."""
    over, failures = _thread.allocate_lock(), []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 raised where the block ends
            failures.append(error)
        finally:
            over.release()

    over.acquire()
    _thread.start_new_thread(run, ())
    try:
        yield
    finally:
        try:
            over.acquire()
        except BaseException:  # Ctrl-C: whoever detaches must know everything that the thread attaches
            over.acquire()
            raise
    if failures:
        raise failures[0]
