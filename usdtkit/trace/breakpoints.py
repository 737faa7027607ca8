"""Checks that one process really has the breakpoints of a traced file, and finds out why if it does not.

Input: the open file with its sites, and what /proc shows of a process. Output: the reason as a sentence, "" where the
breakpoints are there, or None where the process does not run the file.

The kernel reports success as soon as it has noted the file. A process that runs a copy of the code, or an older file of
the same name, is then silently not traced. So this module looks for one breakpoint in the memory of each mapping. Used
by `armed`.
"""

# ruff: noqa: PTH115, PTH123 thousands of files of /proc are read, which pathlib makes slow

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Collection, Sequence

from usdtkit.bpf.abi import abi_of
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.mappings import PAGE
from usdtkit.maps import Identity, Mapping, mapping_at, mappings_in

OVERLAYFS = b"overlay"

REMAPPED = "it runs a copy of its code in memory, as programs make for huge pages"
COPIED_UP = "its file has been changed since it started, and the overlay file system has another copy of it now"
REPLACED = "it runs an older version of this file, which has been replaced since"
WRITABLE = "its mapping of the file is writable or shared, and the kernel puts no breakpoints there"
NO_BREAKPOINT = "its memory has no breakpoint there"


class AttachedFile:
    """A file that was attached to, with its sites. `identity` and `shown` are filled in by `armed`."""

    def __init__(self, file: OpenFile, sites: Collection[int]) -> None:
        self.path = path = file.path
        self.sites = sorted(sites)
        self.identity: Identity | None = None
        self.shown: Identity | None = None  # what processes show, where that is another one
        # What /proc/PID/maps calls a file that was replaced. A path below /proc leads into another file system.
        self.replaced = b"" if path.startswith("/proc/") else os.fsencode(os.path.realpath(path)) + b" (deleted)\n"
        self.file = file

    def sites_in(self, mapping: Mapping) -> Sequence[int]:
        """The sites that lie within a mapping."""
        first = bisect_left(self.sites, mapping.offset)
        return self.sites[first : bisect_left(self.sites, mapping.offset + mapping.end - mapping.start)]

    @property
    def descriptor(self) -> int:
        """The descriptor of the file, open for reading."""
        return self.file.descriptor


def state_of(pid: int, maps: bytes, file: AttachedFile) -> str | None:
    """Why a file is not armed in a process with these maps; "" where it is, None where the process does not run it.

    PermissionError where we may not look, OSError where the process has ended.
    """
    known = [identity for identity in (file.identity, file.shown) if identity is not None]
    mappings = [mapping for identity in known for mapping in mappings_in(maps, identity)]
    if mappings:
        return _state(pid, maps, file, mappings)
    if file.replaced and file.replaced in maps and _runs_replaced(pid, maps, file):
        return REPLACED
    return None


def _state(pid: int, maps: bytes, file: AttachedFile, mappings: Sequence[Mapping]) -> str | None:
    """As `state_of`, of a file that the process has mapped so."""
    executable = [mapping for mapping in mappings if mapping.is_executable]
    held = {
        tuple(sites[:: max(len(sites) - 1, 1)]): mapping for mapping in executable if (sites := file.sites_in(mapping))
    }
    if sum(len(file.sites_in(mapping)) for mapping in held.values()) < len(file.sites):
        mapped = {site for mapping in held.values() for site in file.sites_in(mapping)}
        if _runs_copy(maps, file, mappings, [site for site in file.sites if site not in mapped]):
            return REMAPPED
    if not held:
        return None
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Either all sites of a mapping are armed, or none.
        states = {_state_at(pid, memory, file, mapping, sites[0]) for sites, mapping in held.items()}
    finally:
        os.close(memory)
    return max(states)


def _state_at(pid: int, memory: int, file: AttachedFile, mapping: Mapping, site: int) -> str:
    address = mapping.address(site)
    assert address is not None
    size = abi_of().breakpoint_size
    code = os.pread(memory, size, address)
    if not code:
        raise ProcessLookupError
    if code != os.pread(file.descriptor, size, site):
        return ""
    if mapping.is_writable or mapping.permissions[3:4] == b"s":
        return WRITABLE
    return COPIED_UP if _is_on_overlay(pid, file.descriptor) else NO_BREAKPOINT


def _runs_copy(maps: bytes, file: AttachedFile, mappings: Sequence[Mapping], missing: Sequence[int]) -> bool:
    """Whether the process has code that is not this file's at the address of one of the missing sites."""
    from usdtkit.elf.image import Image  # rarely needed
    from usdtkit.elf.loading import address_of, load_bias

    try:
        with Image.open(f"/proc/self/fd/{file.descriptor}") as image:
            bias = load_bias(image, [(mapping.start, mapping.offset) for mapping in mappings], PAGE)
            addresses = [address_of(image, site) for site in (missing[0], missing[len(missing) // 2], missing[-1])]
    except UsdtkitError:
        return False
    for address in addresses:
        if address is not None:
            mapping = mapping_at(maps, bias + address)
            if mapping is not None and mapping.is_executable and mapping.identity not in (file.identity, file.shown):
                return True
    return False


def _runs_replaced(pid: int, maps: bytes, file: AttachedFile) -> bool:
    """Whether a process runs the file that had this name before, and sees the same file systems as we do."""
    lines = [line for line in maps.splitlines(keepends=True) if line.endswith(file.replaced)]
    if not any(b"x" in line.split(None, 2)[1] for line in lines):
        return False
    return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


def _is_on_overlay(pid: int, descriptor: int) -> bool:
    """Whether an open file lies on overlayfs, by our mounts or those of a process."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        mount = next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), b"")
    for whose in ("self", pid):
        with open(f"/proc/{whose}/mountinfo", "rb") as file:
            for line in file:
                if line.startswith(mount + b" "):
                    return line.partition(b" - ")[2].startswith(OVERLAYFS + b" ")
    return False
