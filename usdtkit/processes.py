"""Processes → the files that they run: /proc/PID/maps in, `usdtkit.model.Target`s that can be opened from here out.

Used through `usdtkit.targets`. A file is opened by its own path where the process sees the same files as we do, through
/proc/PID/root where it lives in a container, and through /proc/PID/map_files where it was deleted or replaced.
"""

# Thousands of paths at a time, where pathlib's cost shows.
# ruff: noqa: PTH115, PTH116, PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from usdtkit.errors import NotFoundError, PrivilegeError, UnsupportedError
from usdtkit.files import FileKey, OpenFile
from usdtkit.maps import Identity, Mapping, executable_mappings, maps_of
from usdtkit.model import Target
from usdtkit.overlays import forget_mounts, layers, real_key


def running_pids() -> list[int]:
    """The processes that /proc shows, kernel threads among them."""
    with os.scandir("/proc") as entries:
        return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def named(*names: str) -> list[int]:
    """The processes that run a program whose file has one of these names; those we may not look into are left out."""
    found = []
    for pid in running_pids():
        try:
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:  # gone, a kernel thread, or not ours
            continue
        if program.removesuffix(" (deleted)").rpartition("/")[2] in names:
            found.append(pid)
    return found


def below(pid: int) -> list[int]:
    """The processes that a process has started, those that they have started, and so on."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # it has ended; so may its threads have
            for thread in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
    return found[1:]


def numbers(pid: int) -> tuple[int, ...]:
    """The numbers of a process: ours, then those in the PID namespaces below, such as a container's; () of none."""
    return _status(pid, b"NSpid:")


def process_of(tid: int) -> int:
    """The number of the process that a thread belongs to; 0 of none."""
    return next(iter(_status(tid, b"Tgid:")), 0)


def parent_of(pid: int) -> int:
    """The process that has started this one, or that took it over since; 0 of none."""
    return next(iter(_status(pid, b"PPid:")), 0)


def user_of(pid: int) -> int:
    """The user as whom a process acts (its effective uid); -1 of none."""
    return next(iter(_status(pid, b"Uid:")[1:]), -1)


def runs(tid: int) -> bool:
    """Whether there is a thread of this number that has not ended; a zombie has."""
    return _field(tid, b"State:")[:1] not in ([], [b"Z"], [b"X"])


def threads(pids: Iterable[int] = ()) -> int:
    """How many threads the processes have now; without processes, all that there are."""
    number = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            number += len(os.listdir(f"/proc/{pid}/task"))
    if number:
        return number
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[3].partition(b"/")[2])


def _status(pid: int, field: bytes) -> tuple[int, ...]:
    return tuple(map(int, _field(pid, field)))


def _field(pid: int, field: bytes) -> list[bytes]:
    """The words of one line of a process's status, [] where there is none."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next((line for line in file if line.startswith(field)), b"")
    except OSError:
        return []
    return line.split()[1:]


def mapped_files(pid: int) -> list[Target]:
    """The files that a process has mapped to execute, one an inode, in the order of its memory.

    NotFoundError where there is no such process, PrivilegeError where it may not be looked into.
    """
    scan = Scan()
    scan.add(pid)
    scan.warn()
    return scan.targets()


def open_target(target: Target) -> list[OpenFile]:
    """Open the file of a target, or on an overlay the files of `usdtkit.overlays.layers`: of a target that was found in
    processes the very file that was found there.

    Meanwhile another may have its path, or the process by which it was reached may have ended: then it is opened as one
    of the processes that still run has it mapped. NotFoundError where none has, PrivilegeError, ElfError.
    """
    try:
        found = layers(OpenFile.open(target.path))
        if target.key is None or any(file.key == target.key for file in found):
            return found
    except NotFoundError:
        if target.key is None:
            raise
    denied = False
    for pid in target.pids:
        try:
            mappings = _executable_files(pid)
        except PermissionError:
            denied = True
            continue
        except OSError:  # it has ended
            continue
        for mapping in mappings:
            if target.key is None or (mapping.identity.inode != target.key[1] and mapping.name != target.name):
                continue
            try:
                file = OpenFile.open(f"/proc/{pid}/map_files/{mapping.span}")
                file.path = target.path  # what has been found in it is known by that
                found = layers(file)
            except NotFoundError:
                continue
            except PrivilegeError:
                denied = True
                continue
            if any(file.key == target.key for file in found):
                return found
    if denied:
        raise PrivilegeError(
            f"{target.name} was replaced, and may not be opened as process {target.pids[0]} has it mapped",
            hint="run as root, or with CAP_CHECKPOINT_RESTORE",
        )
    raise NotFoundError(f"{target.name}: no process has it mapped any more", hint="start the trace again")


def all_mapped(*, quiet: bool = False) -> list[Target]:
    """The same over all processes, each inode once with the processes that map it.

    A process that ends meanwhile is left out; what may not be read costs one warning (none if `quiet`), not the scan.
    """
    scan = Scan()
    for pid in running_pids():
        try:
            scan.add(pid)
        except NotFoundError:
            continue
        except PrivilegeError:
            scan.unreadable.append(pid)
    if not quiet:
        scan.warn()
    return scan.targets()


_NAMED = 5  # processes in a warning


class Scan:
    """What a look over processes found, by file.

    `tells_unreadable`: whether the processes that may not be looked into are logged. Without root these are all
    processes of other users, of which the command line speaks only where it is asked to.
    """

    tells_unreadable = True

    def __init__(self) -> None:
        try:
            self._our_mounts = _mounts("self")
        except OSError as error:
            raise UnsupportedError(
                f"processes cannot be looked at: /proc/self/ns/mnt: {error.strerror}", hint="mount -t proc proc /proc"
            ) from None
        forget_mounts()
        self.unreadable: list[int] = []
        self._unopened: list[str] = []
        self._files: dict[FileKey, tuple[str, str, list[int]]] = {}
        self._real_keys: dict[FileKey, FileKey] = {}  # of those that were seen, which differ on overlays
        # (mounts of the process, its mapping) → path and file: a library is looked up once, and not once a process
        self._known: dict[tuple[str, Identity, str], tuple[str, FileKey]] = {}

    def add(self, pid: int) -> None:
        """Add the files of one process; NotFoundError, PrivilegeError."""
        try:
            mappings = _executable_files(pid)
            mounts, root = (_mounts(pid), os.readlink(f"/proc/{pid}/root")) if mappings else ("", "")
        except (FileNotFoundError, ProcessLookupError):
            raise NotFoundError(f"no process {pid}", hint="pgrep -a NAME finds the number of a process") from None
        except PermissionError:
            raise PrivilegeError(
                f"process {pid}: its memory map may not be read", hint="run as root, or with CAP_SYS_PTRACE"
            ) from None
        # maps spells a path as its reader sees it, else from the root of mounts that are not ours
        above = "" if mounts == self._our_mounts else f"/proc/{pid}/root"
        for mapping in mappings:
            where = (mounts, mapping.identity, mapping.name)
            found = self._known.get(where)
            if found is None:
                try:
                    found = _reach(pid, mapping, above)
                except PermissionError:
                    self._unopened.append(f"{mapping.name} of process {pid}")
                if found is None:
                    continue
                if found[0] == above + mapping.name:
                    self._known[where] = found
            path, key = found
            inside = root != "/" and mapping.name.startswith(f"{root}/")
            name = mapping.name.removeprefix(root) if inside else mapping.name
            real = self._real_keys.get(key)
            if real is None:
                real = self._real_keys[key] = real_key(path, key)
            pids = self._files.setdefault(real, (path, name, []))[2]
            if pid not in pids[-1:]:
                pids.append(pid)

    def targets(self) -> list[Target]:
        """The files found so far."""
        return [Target(path, name, tuple(pids), key) for key, (path, name, pids) in self._files.items()]

    def warn(self) -> None:
        """Log, in one warning, what could not be read; the processes by their names, all of them at the level INFO."""
        unreadable = self.unreadable if self.tells_unreadable else []
        if not unreadable and not self._unopened:
            return
        import logging  # costs more than the scan of a process, and is hardly ever needed

        logger = logging.getLogger(__name__)
        parts = []
        if unreadable:
            shown = unreadable if logger.isEnabledFor(logging.INFO) else unreadable[:_NAMED]
            names = ", ".join([f"{pid} ({_name(pid)})" for pid in shown] + ["…"] * (len(shown) < len(unreadable)))
            parts.append(f"processes that may not be looked into: {len(unreadable)}: {names}")
        if self._unopened:
            parts.append(f"mapped files that may not be opened: {len(self._unopened)}, the first {self._unopened[0]}")
        logger.warning("%s%s", "; ".join(parts), "" if os.geteuid() == 0 else " (root sees all)")


def _name(pid: int) -> str:
    """What /proc calls a process; "?" of one that has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return "?"


def _executable_files(pid: int) -> list[Mapping]:
    """The first executable mapping of each file of a process; OSError where it has ended or may not be read."""
    first: dict[tuple[int, str], Mapping] = {}
    for mapping in executable_mappings(maps_of(pid)):
        if mapping.identity.inode:
            first.setdefault((mapping.identity.inode, mapping.name), mapping)
    return list(first.values())


def _mounts(pid: int | str) -> str:
    """The mount namespace of a process."""
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _reach(pid: int, mapping: Mapping, above: str) -> tuple[str, FileKey] | None:
    """A path that opens the mapped file, and the file; None where it is no regular file, or gone. PermissionError."""
    own = _file(above + mapping.name)
    if own is not None and own[1] == mapping.identity.inode:
        return above + mapping.name, own
    # Deleted, replaced, a memfd; or a file system that shows other inode numbers than it maps, such as overlayfs.
    link = f"/proc/{pid}/map_files/{mapping.span}"
    mapped = _file(link)
    if mapped is None:
        return None
    return (above + mapping.name if mapped == own else link), mapped


def _file(path: str) -> FileKey | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def file_key(path: str) -> FileKey | None:
    """Device and inode of a regular file, on an overlay of the file that it shows, as `Target.key`; None where there is
    none that we may see."""
    try:
        key = _file(path)
    except OSError:
        return None
    return None if key is None else real_key(path, key)
