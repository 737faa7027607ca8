"""Who has attached to user programs, with any tool: usdtkit, bpftrace, bcc, or whatever else loads BPF programs.

Input: the kernel's uprobe_multi links, the perf events with BPF programs that processes hold, and the probes of
tracefs, which perf records. Output: `Tracer`s. A debugger's breakpoints and the kernel modules of SystemTap are in none
of these lists. Paths are as the kernel shows them; a program that others made may have any bytes in its name.
"""

# ruff: noqa: PTH115, PTH123, PTH208 thousands of files of /proc are read, which pathlib makes slow

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from usdtkit._ffi import check, ffi, lib
from usdtkit.errors import PrivilegeError, UsdtkitError
from usdtkit.processes import running_pids, title_of
from usdtkit.records import NamedTuple

_PATH = 4096
_MOST_SITES = 1 << 16  # of one link
_MOST_LINKS = 4096
_LINK_NUMBER = re.compile(rb"^link_id:\s*(\d+)$", re.MULTILINE)
_DEFINED = re.compile(r"[pr]\d*:(\S+) (\S+):0x([0-9a-f]+)")
_OWN = "/proc/self/fd/"
HINT = "who traces is shown to root only (CAP_SYS_ADMIN)"


class Tracer(NamedTuple):
    """Something that is attached to sites of a file.

    `path` is the file and `offsets` are the sites in it, in bytes. `pid` is the only process that it traces, 0 for all.
    `holders` are the processes that hold the descriptor and so keep it attached; a pinned link has none. `unnamed` has
    device and inode of the files that the holders have open without a path (see `usdtkit.kernel.mounts`): if `path` is
    "/", the file is one of these.
    """

    how: str
    path: str
    offsets: frozenset[int]
    pid: int
    holders: tuple[int, ...]
    unnamed: frozenset[tuple[int, int]] = frozenset()

    def __str__(self) -> str:
        holders = ", ".join(f"{title_of(pid)} ({pid})" for pid in self.holders)
        return f"{holders or 'no process'} by {self.how}"

    def traces(self, path: str, offset: int, pid: int) -> bool:
        """Whether it traces this site of a file in this process.

        A container shows the same file at another path, so only the file's name is compared; that of a provider file
        contains the hash of its content.
        """
        if offset not in self.offsets or self.pid not in (0, pid):
            return False
        if self.path != "/":
            return _name(path) == os.path.basename(self.path)  # noqa: PTH119
        return _identity(path) in self.unnamed


def tracers() -> list[Tracer]:
    """Return all that is attached now. Raises PrivilegeError, with a hint, without CAP_SYS_ADMIN."""
    held = _Held()
    return [*_links(held), *held.tracers(), *_defined()]


class _Held:
    """What the processes hold: BPF links by number, uprobes among perf events, and files without a path."""

    def __init__(self) -> None:
        self.links: dict[int, list[int]] = {}
        self._events: dict[tuple[str, int], list[int]] = {}
        self._unnamed: dict[int, list[str]] = {}
        self._look()

    def _look(self) -> None:
        for pid in running_pids():
            try:
                descriptors = os.listdir(f"/proc/{pid}/fd")
            except OSError:  # it has ended, or is not ours to see
                continue
            for descriptor in descriptors:
                try:
                    self._take(pid, descriptor, os.readlink(f"/proc/{pid}/fd/{descriptor}"))
                except OSError:  # it has been closed
                    continue

    def _take(self, pid: int, descriptor: str, name: str) -> None:
        if name in ("anon_inode:bpf_link", "anon_inode:bpf-link"):
            with open(f"/proc/{pid}/fdinfo/{descriptor}", "rb") as file:
                number = _LINK_NUMBER.search(file.read(1 << 16))
            if number is not None:
                self.links.setdefault(int(number[1]), []).append(pid)
        elif name == "anon_inode:[perf_event]":
            site = _perf_event(pid, int(descriptor))
            if site is not None:
                self._events.setdefault(site, []).append(pid)
        elif name == "/":
            self._unnamed.setdefault(pid, []).append(f"/proc/{pid}/fd/{descriptor}")

    def tracers(self) -> list[Tracer]:
        """The perf events, of which the kernel does not say which process they are for."""
        return [
            Tracer("a perf event", path, frozenset([offset]), 0, _once(pids), self.unnamed(pids))
            for (path, offset), pids in self._events.items()
        ]

    def unnamed(self, pids: Iterable[int]) -> frozenset[tuple[int, int]]:
        """Device and inode of the files without a path that these processes have open.

        Only tracers are asked, because the file system of anybody else's file may let whoever asks wait for ever.
        """
        identities = (_identity(path) for pid in pids for path in self._unnamed.get(pid, ()))
        return frozenset(identity for identity in identities if identity is not None)


def _name(path: str) -> str:
    """The name of a file, also of one that was opened by a link of /proc that a mapping is called by."""
    if "/map_files/" in path:
        with suppress(OSError):  # it has been unmapped
            path = os.readlink(path)
    return os.path.basename(path)  # noqa: PTH119


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _perf_event(pid: int, descriptor: int) -> tuple[str, int] | None:
    path, offset = ffi.new("char[]", _PATH), ffi.new("uint64_t *")
    if lib.usdtkit_perf_uprobe_of(pid, descriptor, path, _PATH, offset) != 1:
        return None
    name = os.fsdecode(ffi.string(path, _PATH))
    if name.startswith(_OWN):  # the name that the tracer gave to the kernel
        name = os.readlink(f"/proc/{pid}/fd/{name.removeprefix(_OWN)}")
    return name, int(offset[0])


def _links(held: _Held) -> Iterator[Tracer]:
    path, offsets = ffi.new("char[]", _PATH), ffi.new("uint64_t[]", _MOST_SITES)
    count, pid = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    number = 0
    for _ in range(_MOST_LINKS):
        try:
            number = check(lib.usdtkit_link_next(number), "the kernel does not list its BPF links")
        except PrivilegeError as error:
            raise PrivilegeError(error.message, hint=HINT) from None
        except UsdtkitError:  # this was the last one
            return
        count[0] = _MOST_SITES
        if lib.usdtkit_link_uprobes(number, path, _PATH, offsets, count, pid) == 1:
            sites = frozenset(ffi.unpack(offsets, min(count[0], _MOST_SITES)))
            name = os.fsdecode(ffi.string(path, _PATH))
            holders = _once(held.links.get(number, []))
            yield Tracer(f"BPF link {number}", name, sites, pid[0], holders, held.unnamed(holders))


def _defined() -> Iterator[Tracer]:
    """The probes that `perf probe` has made, which may be recorded or not."""
    for directory in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        try:
            with open(f"{directory}/uprobe_events", encoding="utf-8", errors="surrogateescape") as file:
                lines = file.readlines()
        except OSError:
            continue
        for line in lines:
            if (defined := _DEFINED.match(line)) is not None:
                yield Tracer(f"the event {defined[1]} of tracefs", defined[2], frozenset([int(defined[3], 16)]), 0, ())
        return


def _once(pids: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(pids))
