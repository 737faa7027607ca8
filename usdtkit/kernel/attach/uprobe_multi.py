"""All sites of a file by one link, where the kernel has uprobe_multi (Linux 6.6).

Input: the sites of files, and their programs. Output: a descriptor for each link. One site that the kernel refuses
makes the whole call fail, so such sites are found by bisection.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

from usdtkit._ffi import ffi, lib
from usdtkit.bpf.uapi import ATTACH_TYPE_UPROBE_MULTI, ATTACH_TYPE_UPROBE_SESSION
from usdtkit.elf.instructions import LONGEST, cost_of
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import REFUSALS, Attached, AttachStep, FileSites, SitesByFile, UprobeSite, fail
from usdtkit.kernel.features import has_uprobe_session
from usdtkit.kernel.load import Loaded
from usdtkit.records import dataclass


@dataclass(frozen=True, slots=True)
class _Link:
    """A link to be made, of a program that is loaded."""

    program: int
    attach_type: int
    file: OpenFile
    sites: list[UprobeSite]
    on_return: bool


class UprobeMulti:
    """Attaches by uprobe_multi links; descriptors and refusals go to `attached`."""

    method = "uprobe_multi"

    def __init__(self, loaded: Loaded, attached: Attached) -> None:
        self._loaded = loaded
        self._attached = attached
        self._refused: set[tuple[OpenFile, int]] = set()

    def prepare(self, sites: SitesByFile) -> list[AttachStep]:
        """Load the programs, and return what is to be attached.

        All programs are loaded before the first is attached, so that the kernel's wait for that one serves all that
        follow at once.
        """
        links = [link for file, file_sites in sites.items() for link in self._links(file, file_sites)]
        # A step of a bisection visits every process that maps the file, so sites that are likely to be refused go
        # apart.
        return [
            AttachStep(link.file, partial(self._attach, link, group))
            for link in links
            for group in _by_suspicion(link.file, link.sites)
        ]

    def _links(self, file: OpenFile, sites: FileSites) -> list[_Link]:
        """The links of a file: as few as possible, because detaching costs the same for each."""
        links = []
        if sites.calls and has_uprobe_session():
            cookies = {entry: {site.cookie for site in group} for (entry, _), group in sites.calls.items()}
            program = self._loaded.joined(cookies, dict(sites.calls.keys()))
            if program is not None:
                called = [*chain(*sites.calls.values())]
                links.append(_Link(program, ATTACH_TYPE_UPROBE_SESSION, file, called, False))
                sites = FileSites(sites.plain, {}, sites.tails)
        for on_return, programs in enumerate(sites.by_direction()):
            together = self._loaded.joined(_cookies(programs)) if len(programs) > 1 else None
            loaded = (
                [(together, [*chain(*programs.values())])]
                if together is not None
                else [(self._loaded.program(name, ATTACH_TYPE_UPROBE_MULTI), group) for name, group in programs.items()]
            )
            links += [
                _Link(program, ATTACH_TYPE_UPROBE_MULTI, file, group, on_return == 1) for program, group in loaded
            ]
        return links

    def _attach(self, link: _Link, sites: Sequence[UprobeSite], pid: int) -> int:
        # A site that is refused in one process is refused in every other, and each refusal costs a tenth of a second.
        sites = [site for site in sites if (link.file, site.file_offset) not in self._refused]
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
            ffi.new("uint64_t[]", [site.link_cookie for site in sites]),
            count,
            link.on_return,
            pid,
        )
        if result >= 0:
            self._attached.descriptors.append(result)
            return count
        if result not in REFUSALS:
            fail(result, link.file, pid)
        if count == 1:
            self._attached.refuse(link.file, sites[0], result)
            self._refused.add((link.file, sites[0].file_offset))
            return 0
        middle = count // 2
        return self._attach(link, sites[:middle], pid) + self._attach(link, sites[middle:], pid)


def _cookies(programs: Mapping[str, list[UprobeSite]]) -> dict[str, set[int]]:
    return {name: {site.cookie for site in sites} for name, sites in programs.items()}


def _by_suspicion(file: OpenFile, sites: Sequence[UprobeSite]) -> list[list[UprobeSite]]:
    """The sites in groups: each that the kernel will refuse, as far as we know, alone, and all others together."""
    machine = os.uname().machine
    alone: list[list[UprobeSite]] = []
    others: list[UprobeSite] = []
    try:
        for site in sites:
            refused = cost_of(os.pread(file.descriptor, LONGEST, site.file_offset), machine) == "refused"
            (alone.append([site]) if refused else others.append(site))
    except (OSError, OverflowError):
        return [list(sites)]  # the kernel says better what is wrong
    return [*alone, others] if others else alone
