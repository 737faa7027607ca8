"""Programs → probe sites: one uprobe_multi link for all sites of a file, or a perf event for each.

Input: a `Loaded` program and the sites of one file (file offsets, semaphores, cookies). Output: open descriptors. The
kernel detaches when they are closed, also by the death of this process, and it raises and lowers the semaphores.
"""

from __future__ import annotations

import _thread  # threading takes longer to import than to detach
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain

from usdtkit._ffi import check, describe, ffi, lib
from usdtkit.bpf.cookie import EXIT_BIT
from usdtkit.elf.instructions import LONGEST, cost_of
from usdtkit.errors import NotFoundError, UnsupportedError, UsageError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.features import (
    ATTACH_TYPE_UPROBE_MULTI,
    ATTACH_TYPE_UPROBE_SESSION,
    UPROBE_PMU,
    has_uprobe_multi,
    has_uprobe_session,
)
from usdtkit.kernel.loader import ATTACH_TYPE_NONE, Loaded
from usdtkit.kernel.mounts import leave_mount
from usdtkit.model import Tracepoint
from usdtkit.records import dataclass, field

ENOTSUPP = 524
# What one site refuses, others need not: bisect. Anything else is the call's own failure.
REFUSALS = (-errno.EINVAL, -errno.EILSEQ, -errno.EIO, -ENOTSUPP)
MACHINE = os.uname().machine
# The best first: Linux 6.6; 5.15; 4.20, with a copy of the program for each cookie, as those links carry none.
METHODS = ("uprobe_multi", "perf_link", "perf_ioctl")


@dataclass(frozen=True, slots=True)
class Site:
    """A place to attach to: offsets in the file, `semaphore_offset` 0 where there is none."""

    file_offset: int
    semaphore_offset: int
    cookie: int

    @property
    def is_exit(self) -> bool:
        """Whether a function leaves here."""
        return bool(self.cookie & EXIT_BIT)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site that the kernel does not take, and why."""

    path: str
    file_offset: int
    reason: str


REWRITTEN = "the file was written to after it was read"


@dataclass
class FileSites:
    """The sites of one file, by the program of the text that runs there: `plain` ones; those of `calls`, with the
    programs of a function's entry and of the kernel's return probe; and `tails`, jumps from which on a return probe
    takes over."""

    plain: dict[str, list[Site]] = field(default_factory=dict)
    calls: dict[tuple[str, str], list[Site]] = field(default_factory=dict)
    tails: dict[str, list[Site]] = field(default_factory=dict)

    @property
    def sites(self) -> list[Site]:
        """All of them; a function's once, though two programs run there."""
        return [site for group in (self.plain, self.calls, self.tails) for those in group.values() for site in those]

    def add(self, program: str, site: Site) -> None:
        """Add a site of `plain`."""
        self.plain.setdefault(program, []).append(site)

    def add_call(self, entry: str, end: str, site: Site) -> None:
        """Add a function of `calls`."""
        self.calls.setdefault((entry, end), []).append(site)

    def add_tail(self, program: str, site: Site) -> None:
        """Add a jump of `tails`."""
        self.tails.setdefault(program, []).append(site)

    def by_direction(self) -> tuple[dict[str, list[Site]], dict[str, list[Site]]]:
        """Programs and their sites where entry and return of `calls` go apart: those at the sites, those on return.

        Exits of functions come first. The kernel runs what came last at an address first, and the only instruction of
        a function may be its entry and its exit.
        """
        order = sorted(self.plain.items(), key=lambda item: not item[1][0].is_exit)
        here = {program: list(sites) for program, sites in order}
        on_return = {program: list(sites) for program, sites in self.tails.items()}
        for (entry, end), sites in self.calls.items():
            here.setdefault(entry, []).extend(sites)
            on_return.setdefault(end, []).extend(sites)
        return here, on_return


Wanted = Mapping[OpenFile, FileSites]


@dataclass(frozen=True, slots=True)
class _Multi:
    """A uprobe_multi link to be made, of a program that is loaded."""

    program: int
    attach_type: int
    file: OpenFile
    sites: list[Site]
    on_return: bool


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
        self._not_taken: set[tuple[OpenFile, int]] = set()
        self.refused: list[Refusal] = []
        self.method = method or ("uprobe_multi" if has_uprobe_multi() else "perf_link")

    def attach(
        self,
        wanted: Wanted,
        pids: Sequence[int] = (0,),
        tracepoints: Sequence[tuple[str, Tracepoint]] = (),
    ) -> int:
        """Attach programs to their sites in those processes (0: in every one, present and future), and to tracepoints.

        `tracepoints` are pairs of a program and the kernel's name. Returns how many sites were attached; the others are
        in `refused`. Raises for what is not one site's fault.
        """
        files = list(wanted)
        multi: list[_Multi] = []
        with _beside(lambda: self._load_tracepoints(tracepoints)):
            if self.method == "uprobe_multi":
                # Loaded before the first is attached: the kernel's wait for that one serves all that follow at once.
                multi = [link for file, sites in wanted.items() for link in self._multi(file, sites)]
        for program, tracepoint in tracepoints:
            descriptor = lib.usdtkit_raw_tracepoint_open(
                self._loaded.tracepoint_program(program), tracepoint.name.encode()
            )
            self._descriptors.append(check(descriptor, f"attaching to the kernel's {tracepoint.name}"))
        for file in files:
            leave_mount(file)
        # A step of a bisection visits every process that maps the file, so what is easily suspected goes apart.
        groups = [(link, group) for link in multi for group in _by_suspicion(link.file, link.sites)]
        steps = [(link.file, partial(self._attach_multi, link, group)) for link, group in groups]
        steps += [
            (file, partial(self._attach_perf, name, file, those, on_return == 1))
            for file, sites in ({} if multi else wanted).items()
            for on_return, programs in enumerate(sites.by_direction())
            for name, those in programs.items()
        ]
        attached = dict.fromkeys(files, 0)
        held: dict[OpenFile, list[int]] = {file: [] for file in files}
        steps = [step for step in steps if not step[0].is_rewritten]
        ended: list[NotFoundError] = []
        for pid in pids:
            try:
                for file, attach in steps:
                    before = len(self._descriptors)
                    attached[file] += attach(pid)
                    held[file] += self._descriptors[before:]
            except NotFoundError as error:  # the others go on
                ended.append(error)
        if ended:
            if len(ended) == len(pids):
                raise ended[0]
            import logging  # dear, and hardly ever needed

            logging.getLogger(__name__).warning("left out: %s", "; ".join(error.message for error in ended))
        for file in files:
            if file.is_rewritten:  # its offsets may lie anywhere now
                self._give_up(file, held[file], wanted)
                attached[file] = 0
        return sum(attached.values())

    def _give_up(self, file: OpenFile, descriptors: Sequence[int], wanted: Wanted) -> None:
        """Detach from a file what hangs on these descriptors, and refuse all of its sites."""
        self._descriptors = [each for each in self._descriptors if each not in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        sites = chain.from_iterable(chain(*programs.values()) for programs in wanted[file].by_direction())
        self.refused += [Refusal(file.path, site.file_offset, REWRITTEN) for site in sites]

    def _load_tracepoints(self, tracepoints: Sequence[tuple[str, Tracepoint]]) -> None:
        for program, _ in tracepoints:
            self._loaded.tracepoint_program(program)

    def close(self) -> None:
        """Detach. For each descriptor the kernel waits until no thread is in its probes; the waits overlap."""
        with ExitStack() as closing:
            while len(self._descriptors) > 1:
                closing.enter_context(_beside(partial(os.close, self._descriptors.pop())))
            if self._descriptors:
                os.close(self._descriptors.pop())

    def _multi(self, file: OpenFile, sites: FileSites) -> list[_Multi]:
        """The links of a file, their programs loaded: as few as can be, as what detaching costs is for each link."""
        links = []
        if sites.calls and has_uprobe_session():
            cookies = {entry: {site.cookie for site in those} for (entry, _), those in sites.calls.items()}
            program = self._loaded.joined(cookies, dict(sites.calls.keys()))
            if program is not None:
                called = [*chain(*sites.calls.values())]
                links.append(_Multi(program, ATTACH_TYPE_UPROBE_SESSION, file, called, False))
                sites = FileSites(sites.plain, {}, sites.tails)
        for on_return, programs in enumerate(sites.by_direction()):
            together = self._loaded.joined(_cookies(programs)) if len(programs) > 1 else None
            loaded = (
                [(together, [*chain(*programs.values())])]
                if together is not None
                else [(self._loaded.program(name, ATTACH_TYPE_UPROBE_MULTI), those) for name, those in programs.items()]
            )
            type = ATTACH_TYPE_UPROBE_MULTI
            links += [_Multi(program, type, file, those, on_return == 1) for program, those in loaded]
        return links

    def _attach_multi(self, link: _Multi, sites: list[Site], pid: int) -> int:
        # What one process's instruction is refused for, every other's is; and each refusal costs a tenth of a second.
        sites = [site for site in sites if (link.file, site.file_offset) not in self._not_taken]
        count = len(sites)
        if not count:
            return 0
        result = lib.usdtkit_link_uprobe_multi(
            link.program,
            link.attach_type,
            link.file.attach_path.encode(),
            ffi.new("uint64_t[]", [site.file_offset for site in sites]),
            ffi.new("uint64_t[]", [site.semaphore_offset for site in sites])
            if any(site.semaphore_offset for site in sites)
            else ffi.NULL,
            ffi.new("uint64_t[]", [site.cookie for site in sites]),
            count,
            link.on_return,
            pid,
        )
        if result >= 0:
            self._descriptors.append(result)
            return count
        if result not in REFUSALS:
            _fail(result, link.file, pid)
        if count == 1:
            self.refused.append(Refusal(link.file.path, sites[0].file_offset, _reason(-result)))
            self._not_taken.add((link.file, sites[0].file_offset))
            return 0
        middle = count // 2
        return self._attach_multi(link, sites[:middle], pid) + self._attach_multi(link, sites[middle:], pid)

    def _attach_perf(self, program: str, file: OpenFile, sites: Sequence[Site], on_return: bool, pid: int) -> int:
        pmu, path = perf_pmu(), file.attach_path.encode()
        attached = 0
        for site in sites:
            event = lib.usdtkit_perf_uprobe(*pmu, path, site.file_offset, site.semaphore_offset, on_return, pid)
            if event in REFUSALS:
                self.refused.append(Refusal(file.path, site.file_offset, _reason(-event)))
                continue
            if event < 0:
                _fail(event, file, pid)
            self._descriptors.append(event)
            if self.method == "perf_link":
                shared = self._loaded.program(program, ATTACH_TYPE_NONE)
                link = lib.usdtkit_link_perf(shared, event, site.cookie)
                if link >= 0:
                    self._descriptors.append(link)
                elif link == -errno.EINVAL:
                    self.method = "perf_ioctl"
                else:
                    _fail(link, file, pid)
            if self.method == "perf_ioctl":
                own = self._loaded.program(program, ATTACH_TYPE_NONE, site.cookie)
                check(lib.usdtkit_perf_set_program(own, event), f"attaching to {file.path}")
            check(lib.usdtkit_perf_enable(event), f"attaching to {file.path}")
            attached += 1
        return attached


@contextmanager
def _beside(work: Callable[[], object]) -> Iterator[None]:
    """Work in a thread of its own, which is over, or has failed, at the end of the block."""
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
        except BaseException:  # Ctrl-C: what it has just attached must be known to be detached
            over.acquire()
            raise
    if failures:
        raise failures[0]


def _cookies(sites: Mapping[str, list[Site]]) -> dict[str, set[int]]:
    return {name: {site.cookie for site in those} for name, those in sites.items()}


def _reason(code: int) -> str:
    # All tracers of a site must name one semaphore; bcc's Python binding (issue 5236 there) names any that comes along.
    also = "; does another tracer hold this site, with another semaphore?" if code == errno.EINVAL else ""
    return describe(code) + also


def _by_suspicion(file: OpenFile, sites: Sequence[Site]) -> list[list[Site]]:
    """All sites but those that the kernel will refuse as far as we know, and each of these alone; no empty group."""
    alone: list[list[Site]] = []
    others: list[Site] = []
    try:
        for site in sites:
            refused = cost_of(os.pread(file.descriptor, LONGEST, site.file_offset), MACHINE) == "refused"
            (alone.append([site]) if refused else others.append(site))
    except (OSError, OverflowError):
        return [list(sites)]  # the kernel says better what is wrong
    return [*alone, others] if others else alone


def _fail(result: int, file: OpenFile, pid: int) -> None:
    if result == -errno.ESRCH:
        raise NotFoundError(f"process {pid} ended before it could be traced")
    if result == -errno.ENOENT:  # the file is open, so it has not gone
        raise UnsupportedError(
            f"attaching to {file.path}: there is no {file.attach_path}", hint="mount -t proc proc /proc"
        )
    check(result, f"attaching to {file.path}")
    raise UsdtkitError(f"attaching to {file.path} failed")


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
