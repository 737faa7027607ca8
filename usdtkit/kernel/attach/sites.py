"""The nouns of attaching: sites in files and in the kernel, those that were refused, and what is attached.

`usdtkit.trace` makes sites from places, and the other modules of this package attach programs to them. What the two
ways of uprobes have in common is here too: what the kernel's answers mean.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from usdtkit._ffi import ENOTSUPP, check, describe
from usdtkit.bpf.cookie import EXIT_BIT
from usdtkit.errors import NotFoundError, UnsupportedError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.model import KernelPlace
from usdtkit.records import NamedTuple, dataclass, field

REFUSALS = (-errno.EINVAL, -errno.EILSEQ, -errno.EIO, -ENOTSUPP)
"""Answers of the kernel that concern one site, so that others can still be attached."""

NO_PROBE = "the kernel cannot probe the instruction there"
REWRITTEN = "the file was written to after it was read"


Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class UprobeSite:
    """Where to put a breakpoint: offsets in the file. `semaphore_offset` is 0 where the site has no semaphore.

    A link carries 64 bits: above the `cookie` the number of the file, by which the program says where hits came from.
    """

    file_offset: int
    semaphore_offset: int
    cookie: int
    file_number: int = 0

    @property
    def link_cookie(self) -> int:
        """What a link carries."""
        return self.file_number << 32 | self.cookie

    @property
    def is_exit(self) -> bool:
        """Whether this is an instruction with which a function leaves."""
        return bool(self.cookie & EXIT_BIT)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site that the kernel refused, and why. `name` is the name of its probe or function, once it is known."""

    path: str
    file_offset: int
    reason: str
    name: str = ""


@dataclass
class FileSites:
    """The sites of one file, by the name of the program that runs there.

    - `plain`: sites with one program
    - `calls`: functions, by the programs of their entry and of the kernel's return probe
    - `tails`: jumps from which on a return probe takes over
    - `handles`: the open files by which these sites were found; several, where one file was found more than once
    """

    plain: dict[str, list[UprobeSite]] = field(default_factory=dict)
    calls: dict[tuple[str, str], list[UprobeSite]] = field(default_factory=dict)
    tails: dict[str, list[UprobeSite]] = field(default_factory=dict)
    handles: list[OpenFile] = field(default_factory=list)

    @property
    def sites(self) -> list[UprobeSite]:
        """All sites; a function's once, though two programs run there."""
        groups = (self.plain, self.calls, self.tails)
        return [site for group in groups for sites in group.values() for site in sites]

    def with_more(self, more: FileSites) -> FileSites:
        """These sites and those of `more`, which are others."""
        return FileSites(
            _together(self.plain, more.plain),
            _together(self.calls, more.calls),
            _together(self.tails, more.tails),
            [*self.handles, *more.handles],
        )

    def add(self, program: str, site: UprobeSite) -> None:
        """Add a site to `plain`."""
        self.plain.setdefault(program, []).append(site)

    def add_call(self, entry: str, end: str, site: UprobeSite) -> None:
        """Add a function to `calls`."""
        self.calls.setdefault((entry, end), []).append(site)

    def add_tail(self, program: str, site: UprobeSite) -> None:
        """Add a jump to `tails`."""
        self.tails.setdefault(program, []).append(site)

    def by_direction(self) -> tuple[dict[str, list[UprobeSite]], dict[str, list[UprobeSite]]]:
        """Programs with their sites, for attachments that are either at the site or on return: each of the two.

        Exits of functions come first. The kernel runs what was attached last at an address first, and the only
        instruction of a function may be its entry and its exit.
        """
        order = sorted(self.plain.items(), key=lambda item: not item[1][0].is_exit)
        at_site = {program: list(sites) for program, sites in order}
        on_return = {program: list(sites) for program, sites in self.tails.items()}
        for (entry, end), sites in self.calls.items():
            at_site.setdefault(entry, []).extend(sites)
            on_return.setdefault(end, []).extend(sites)
        return at_site, on_return


def _together(
    some: Mapping[Key, list[UprobeSite]], others: Mapping[Key, list[UprobeSite]]
) -> dict[Key, list[UprobeSite]]:
    return {key: [*some.get(key, ()), *others.get(key, ())] for key in (*some, *others)}


SitesByFile = Mapping[OpenFile, FileSites]


class KernelSite(NamedTuple):
    """A place of the kernel, and the program that runs there. Programs of hooks read the `cookie`."""

    program: str
    place: KernelPlace
    cookie: int = 0


class AttachStep(NamedTuple):
    """A part of a file's sites. `attach` attaches it in one process (0: in all) and returns how many sites it were."""

    file: OpenFile
    attach: Callable[[int], int]


class Attached:
    """What is attached so far: descriptors, and the sites that the kernel refused."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.refused: list[Refusal] = []

    def refuse(self, file: OpenFile, site: UprobeSite, result: int) -> None:
        """Note a site that the kernel refused with one of REFUSALS."""
        reason = NO_PROBE if result == -ENOTSUPP else describe(-result)
        if result == -errno.EINVAL:
            # All tracers of a site must name the same semaphore. bcc's Python binding names any (its issue 5236).
            reason += "; does another tracer hold this site, with another semaphore?"
        self.refused.append(Refusal(file.path, site.file_offset, reason))

    def give_up(self, file: OpenFile, sites: FileSites, descriptors: Sequence[int]) -> None:
        """Detach from a file that was written to what these descriptors hold, and note all of its sites as refused."""
        self.descriptors = [descriptor for descriptor in self.descriptors if descriptor not in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        directions = (group for programs in sites.by_direction() for group in programs.values())
        self.refused += [Refusal(file.path, site.file_offset, REWRITTEN) for group in directions for site in group]


def fail(result: int, file: OpenFile, pid: int) -> None:
    """Raise for an answer that is not one site's fault."""
    if result == -errno.ESRCH:
        raise NotFoundError(f"process {pid} ended before it could be traced")
    if result == -errno.ENOENT:  # the file is open, so it cannot have gone
        raise UnsupportedError(
            f"attaching to {file.path}: there is no {file.attach_path}", hint="mount -t proc proc /proc"
        )
    check(result, f"attaching to {file.path}")
    raise UsdtkitError(f"attaching to {file.path} failed")
