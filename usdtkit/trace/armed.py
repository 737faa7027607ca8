"""Whether the processes that map what is traced really have the breakpoints, and if not, why not.

Input: the sites that a session has attached to. Output: lines for people, and a number for the account. The kernel
reports success as soon as it has noted the file. A process that runs a copy of the code, or an older file of the same
name, is then silently not traced. Therefore one breakpoint is looked for in the memory of each process's mappings.
"""

# ruff: noqa: PTH115, PTH123 thousands of files of /proc are read, which pathlib makes slow

from __future__ import annotations

import _thread  # threading takes long to import
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import islice

from usdtkit.bpf.abi import abi_of
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import SitesByFile
from usdtkit.mappings import PAGE, identities
from usdtkit.maps import Identity, Mapping, mapping_at, mappings_in, maps_of
from usdtkit.processes import running_pids
from usdtkit.records import dataclass

SHOWN = 5  # processes that a line names
MOST_FILES = 128  # files that are looked for in processes; each is kept open
# Up to so many processes are looked at before the start is over. More are looked at in a thread: each takes 0.1 ms.
FEW = 8
# The time that a look at the end may take, when nothing came: enough for some thousand processes.
LAST_LOOK_S = 0.5
OVERLAYFS = b"overlay"

REMAPPED = "its code is not the file's, but a copy of it in memory, as programs make for huge pages"
DANGER = "; one that starts now would copy our breakpoints too, and be killed by them"
COPIED_UP = "its file has been changed since it started, and the overlay file system has another copy of it now"
REPLACED = "it runs an older file of this name, which has been replaced since"
WRITABLE = "its mapping of the file is writable or shared, and the kernel puts no breakpoints there"
NOT_MAPPED = "it has not mapped what is traced"
NO_BREAKPOINT = "its memory has no breakpoint there"


@dataclass(frozen=True, slots=True)
class Unarmed:
    """Processes in which a file's probes are not in force, and the reason."""

    reason: str
    path: str
    pids: tuple[int, ...]

    @property
    def line(self) -> str:
        """A sentence that names the first few processes."""
        names = ", ".join(map(str, self.pids[:SHOWN]))
        others = f", … ({len(self.pids)} processes)" if len(self.pids) > SHOWN else ""
        return f"not armed in {names}{others}: {self.reason}: {self.path}"


class _File:
    """One attached file: its sites, and the bytes that it has there."""

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


class _Look:
    """What one look at the processes has found."""

    def __init__(self) -> None:
        self.unarmed: dict[tuple[str, str], list[int]] = {}
        self.armed = self.unreadable = 0
        self.is_whole = True


class Armed:
    """Checks the sites of a session: once when they are attached, and again before the session ends if nothing came."""

    def __init__(self, sites: SitesByFile, refused: Collection[tuple[str, int]], pids: Sequence[int]) -> None:
        """`refused`: sites that were not attached, by path and file offset. `pids`: the processes; none means all."""
        self._pids = pids
        self._files: list[_File] = []
        self._look = _Look()  # nobody was looked at yet
        self._look.is_whole = False
        self._tell: Callable[[str], object] | None = None
        self._reported: set[str] = set()
        self._stop = self._is_final = False
        self._over = _thread.allocate_lock()
        for file, file_sites in islice(sites.items(), MOST_FILES):
            offsets = {site.file_offset for site in file_sites.sites}
            if offsets := {offset for offset in offsets if (file.path, offset) not in refused}:
                self._files.append(_File(file, offsets))
        known = identities([file.descriptor for file in self._files])
        for attached, identity in zip(self._files, known, strict=True):
            attached.identity = identity
        self._find_shown()
        self._paths = [attached.path for attached in self._files]
        self._knows_all = len(self._files) == len(sites) and all(attached.identity for attached in self._files)

    def _find_shown(self) -> None:
        """Find out what processes show that they map, where an overlay file system shows a file of its own.

        The kernel attaches to the file below the overlay, which is another inode.
        """
        for attached in self._files:
            with suppress(UsdtkitError):  # the path has gone, so nothing but the file itself can be mapped
                overlaid = OpenFile.open(attached.path)
                if overlaid != attached.file:
                    (attached.shown,) = identities([overlaid.descriptor])

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
        """Look once others before a session ends that saw nothing: other processes may run now."""
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
        """What to report: a line for each reason and file, or that nobody runs what is traced."""
        if unarmed := self.unarmed:
            return [line.line + (DANGER if line.reason == REMAPPED and not self._pids else "") for line in unarmed]
        if self._pids or self._look.armed or not self._look.is_whole or not self._knows_all or not self._paths:
            return []
        others = f" or any of {len(self._paths) - 1} other files" if len(self._paths) > 1 else ""
        unknown = f" ({self._look.unreadable} may not be looked into)" if self._look.unreadable else ""
        return [f"no running process maps {self._paths[0]}{others}; it is attached for those that start later{unknown}"]

    @property
    def doubts(self) -> list[str]:
        """What could not be seen of the processes that were given."""
        if not self._pids or not self._look.unreadable:
            return []
        return [f"what is armed in {self._look.unreadable} of the processes cannot be seen without CAP_SYS_PTRACE"]

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
            known = [identity for identity in (file.identity, file.shown) if identity is not None]
            mappings = [mapping for identity in known for mapping in mappings_in(maps, identity)]
            if mappings:
                state = _state(pid, maps, file, mappings)
                if state is not None:
                    states[file.path] = state
            elif file.replaced and file.replaced in maps and _runs_replaced(pid, maps, file):
                states[file.path] = REPLACED
        if maps and not states and self._pids and self._files:
            states[self._files[0].path] = NOT_MAPPED
        return states


def _state(pid: int, maps: bytes, file: _File, mappings: Sequence[Mapping]) -> str | None:
    """Why a file is not armed in a process with these mappings of it; "" where it is armed, None where it does not
    run."""
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
        states = {_state_of(pid, memory, file, mapping, sites[0]) for sites, mapping in held.items()}
    finally:
        os.close(memory)
    return max(states)


def _state_of(pid: int, memory: int, file: _File, mapping: Mapping, site: int) -> str:
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


def _runs_copy(maps: bytes, file: _File, mappings: Sequence[Mapping], missing: Sequence[int]) -> bool:
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


def _runs_replaced(pid: int, maps: bytes, file: _File) -> bool:
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
