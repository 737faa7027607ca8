"""Programs → probe sites: one uprobe_multi link for all sites of a file, or a perf event for each.

Input: a `Loaded` program and the sites of one file (file offsets, semaphores, cookies). Output: open descriptors. The
kernel detaches when they are closed, also by the death of this process, and it raises and lowers the semaphores.
"""

from __future__ import annotations

import _thread  # threading takes longer to import than to detach
import errno
import os
from collections.abc import Mapping, Sequence
from functools import cache

from usdtkit._ffi import check, describe, ffi, lib
from usdtkit.bpf.loader import ATTACH_TYPE_NONE, ATTACH_TYPE_UPROBE_MULTI, Loaded
from usdtkit.elf.instructions import REFUSED_PREFIXES
from usdtkit.errors import NotFoundError, UnsupportedError, UsageError, UsdtkitError
from usdtkit.features import UPROBE_PMU, has_uprobe_multi
from usdtkit.records import dataclass

ENOTSUPP = 524
# What one site refuses, others need not: bisect. Anything else is the call's own failure.
REFUSALS = (-errno.EINVAL, -errno.EILSEQ, -errno.EIO, -ENOTSUPP)
# A function of libc begins with `lock`.
SUSPECT = REFUSED_PREFIXES if os.uname().machine == "x86_64" else frozenset()
# The best first: Linux 6.6; 5.15; 4.20, with a copy of the program for each cookie, as those links carry none.
METHODS = ("uprobe_multi", "perf_link", "perf_ioctl")


@dataclass(frozen=True, slots=True)
class Site:
    """A place to attach to: offsets in the file, `semaphore_offset` 0 where there is none."""

    file_offset: int
    semaphore_offset: int
    cookie: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site that the kernel does not take, and why."""

    path: str
    file_offset: int
    reason: str


class Links:
    """All attachments of a session. `close` detaches everything."""

    def __init__(self, loaded: Loaded, method: str | None = None) -> None:
        """`method`: one of METHODS, or None for the first that the kernel has."""
        if method not in (None, *METHODS):
            raise UsageError(f"{method!r} is no way to attach", hint=f"one of {', '.join(METHODS)}")
        if method == "uprobe_multi" and not has_uprobe_multi():
            raise UnsupportedError(
                "this kernel has no uprobe_multi, or does not let us use it",
                hint="without a method, the best that there is is taken; usdtkit doctor shows what that is",
            )
        self._loaded = loaded
        self._descriptors: list[int] = []
        self.refused: list[Refusal] = []
        self.method = method or ("uprobe_multi" if has_uprobe_multi() else "perf_link")

    def attach(self, path: str, sites: Mapping[str, list[Site]], *, on_return: bool = False, pid: int = 0) -> int:
        """Attach each of these programs to its sites in one file; `pid` 0 means every process, present and future.

        Returns how many were attached; the others are in `refused`. Raises for what is not one site's fault.
        """
        before = len(self.refused)
        if self.method == "uprobe_multi":
            for program, those in self._joined(sites):
                # A step of a bisection visits every process that maps the file, so what is easily suspected goes apart.
                for group in _by_suspicion(path, those):
                    self._attach_multi(program, path, group, on_return, pid)
        else:
            for name, those in sites.items():
                self._attach_perf(name, path, those, on_return, pid)
        return sum(map(len, sites.values())) - (len(self.refused) - before)

    def attach_tracepoint(self, program: str, name: str) -> None:
        """Attach `program` to a tracepoint of the kernel."""
        link = lib.usdtkit_raw_tracepoint_open(self._loaded.tracepoint_program(program), name.encode())
        self._descriptors.append(check(link, f"attaching to the kernel's {name}"))

    def close(self) -> None:
        """Detach. For each descriptor the kernel waits until no thread is in its probes; the waits overlap."""
        if not self._descriptors:
            return
        last = self._descriptors.pop()
        others = [(descriptor, _thread.allocate_lock()) for descriptor in self._descriptors]
        self._descriptors.clear()
        for descriptor, closed in others:
            closed.acquire()
            _thread.start_new_thread(_close, (descriptor, closed))
        os.close(last)
        for _, closed in others:
            closed.acquire()

    def _joined(self, sites: Mapping[str, list[Site]]) -> list[tuple[int, list[Site]]]:
        """Programs to attach, and where: one of all of them, as what detaching costs is for each link, if it can be."""
        if len(sites) > 1:
            together = self._loaded.joined({name: {site.cookie for site in those} for name, those in sites.items()})
            if together is not None:
                return [(together, [site for those in sites.values() for site in those])]
        return [(self._loaded.program(name, ATTACH_TYPE_UPROBE_MULTI), those) for name, those in sites.items()]

    def _attach_multi(self, program: int, path: str, sites: list[Site], on_return: bool, pid: int) -> None:
        count = len(sites)
        result = lib.usdtkit_link_uprobe_multi(
            program,
            os.fsencode(path),
            ffi.new("uint64_t[]", [site.file_offset for site in sites]),
            ffi.new("uint64_t[]", [site.semaphore_offset for site in sites])
            if any(site.semaphore_offset for site in sites)
            else ffi.NULL,
            ffi.new("uint64_t[]", [site.cookie for site in sites]),
            count,
            on_return,
            pid,
        )
        if result >= 0:
            self._descriptors.append(result)
        elif result in REFUSALS and count == 1:
            self.refused.append(Refusal(path, sites[0].file_offset, _reason(-result)))
        elif result in REFUSALS:
            middle = count // 2
            self._attach_multi(program, path, sites[:middle], on_return, pid)
            self._attach_multi(program, path, sites[middle:], on_return, pid)
        else:
            _fail(result, path, pid)

    def _attach_perf(self, program: str, path: str, sites: Sequence[Site], on_return: bool, pid: int) -> None:
        pmu = perf_pmu()
        for site in sites:
            event = lib.usdtkit_perf_uprobe(
                *pmu, os.fsencode(path), site.file_offset, site.semaphore_offset, on_return, pid
            )
            if event in REFUSALS:
                self.refused.append(Refusal(path, site.file_offset, _reason(-event)))
                continue
            if event < 0:
                _fail(event, path, pid)
            self._descriptors.append(event)
            if self.method == "perf_link":
                shared = self._loaded.program(program, ATTACH_TYPE_NONE)
                link = lib.usdtkit_link_perf(shared, event, site.cookie)
                if link >= 0:
                    self._descriptors.append(link)
                elif link == -errno.EINVAL:
                    self.method = "perf_ioctl"
                else:
                    _fail(link, path, pid)
            if self.method == "perf_ioctl":
                own = self._loaded.program(program, ATTACH_TYPE_NONE, site.cookie)
                check(lib.usdtkit_perf_set_program(own, event), f"attaching to {path}")
            check(lib.usdtkit_perf_enable(event), f"attaching to {path}")


def _close(descriptor: int, closed: _thread.LockType) -> None:
    try:
        os.close(descriptor)
    finally:
        closed.release()


def _reason(code: int) -> str:
    # All tracers of a site must name one semaphore; bcc's Python binding (issue 5236 there) names any that comes along.
    also = "; does another tracer hold this site, with another semaphore?" if code == errno.EINVAL else ""
    return describe(code) + also


def _by_suspicion(path: str, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites whose first byte the kernel may refuse, and the others; no empty group."""
    suspect: list[Site] = []
    others: list[Site] = []
    try:
        with open(path, "rb") as file:  # noqa: PTH123 pathlib is dear at the start
            for site in sites:
                first = os.pread(file.fileno(), 1, site.file_offset)
                (suspect if first and first[0] in SUSPECT else others).append(site)
    except (OSError, OverflowError):
        return [list(sites)]  # the kernel says better what is wrong
    return [group for group in (suspect, others) if group]


def _fail(result: int, path: str, pid: int) -> None:
    if result == -errno.ESRCH:
        raise NotFoundError(f"process {pid} ended before it could be traced")
    if result == -errno.ENOENT:
        raise NotFoundError(f"{path} has gone", hint="was the program upgraded? start the trace again")
    check(result, f"attaching to {path}")
    raise UsdtkitError(f"attaching to {path} failed")


@cache
def perf_pmu() -> tuple[int, int, int]:
    """The uprobe PMU's (type, bit that asks for return probes, shift of the semaphore's offset), from sysfs."""
    from pathlib import Path  # dear, and newer kernels do without this

    pmu = Path(UPROBE_PMU)
    try:
        number = int((pmu / "type").read_text())
        return_bit = int((pmu / "format/retprobe").read_text().partition(":")[2])
        reference = pmu / "format/ref_ctr_offset"
        shift = int(reference.read_text().partition(":")[2].partition("-")[0]) if reference.exists() else 32
    except (OSError, ValueError):
        raise UnsupportedError(
            "this kernel has no uprobes", hint="it needs CONFIG_UPROBES and CONFIG_UPROBE_EVENTS: see usdtkit doctor"
        ) from None
    return number, return_bit, shift
