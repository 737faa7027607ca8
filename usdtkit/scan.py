"""Processes → the files that they run: /proc/PID/maps in, `usdtkit.model.Target`s that can be opened from here out.

Used through `usdtkit.targets`. Uses `usdtkit.maps`, `usdtkit.processes` and `usdtkit.overlays`. A file is opened
by its own path if the process sees the same files as we do, through /proc/PID/root if it lies in a container, and
through /proc/PID/map_files if it was deleted or replaced.
"""

# ruff: noqa: PTH115, PTH116 thousands of paths at a time, where pathlib's cost shows

from __future__ import annotations

import os
import stat
from contextlib import suppress

from usdtkit.errors import NotFoundError, PrivilegeError, UnsupportedError, as_root
from usdtkit.files import FileKey, OpenFile
from usdtkit.mappedfiles import inspecting, open_mapping
from usdtkit.maps import Mapping, executable_lines, executable_mappings, maps_of, parse
from usdtkit.model import Target
from usdtkit.overlays import forget_mounts, layers, real_key
from usdtkit.processes import mount_namespace, name_of, running_pids

_SHOWN = 5  # processes in a warning


def mapped_files(pid: int) -> list[Target]:
    """Return the files that a process has mapped to execute, one for each inode, in the order of their addresses.

    NotFoundError if there is no such process, PrivilegeError if it may not be inspected.
    """
    scan = Scan()
    scan.add(pid)
    scan.warn()
    return scan.targets()


def all_mapped(*, quiet: bool = False) -> list[Target]:
    """Return the files that any process has mapped to execute, one for each inode, with the processes that map it.

    A process that ends meanwhile is left out. What may not be read costs one warning, or none if `quiet`.
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


def open_target(target: Target) -> list[OpenFile]:
    """Open the file of a target; on an overlay, open the files that `usdtkit.overlays.layers` gives instead.

    A target that was found in processes means the file that was found there. Since then, another file may have taken
    its path, or the process through which it was reached may have ended. Then it is opened through another process that
    still maps it. NotFoundError if none has it any more, PrivilegeError, ElfError.
    """
    try:
        files = layers(OpenFile.open(target.path))
        if target.key is None or any(file.key == target.key for file in files):
            return files
    except NotFoundError:
        if target.key is None:
            raise
    is_denied = False
    for pid in target.pids:
        try:
            mappings = _mappings_of_files(pid)
        except PermissionError:
            is_denied = True
            continue
        except OSError:  # it has ended
            continue
        for mapping in mappings:
            if target.key is None or (mapping.identity.inode != target.key[1] and mapping.name != target.name):
                continue
            try:
                file = OpenFile.open(f"/proc/{pid}/map_files/{mapping.span}")
                file.path = target.path  # by which the user knows it
                files = layers(file)
            except NotFoundError:
                continue
            except PrivilegeError:
                is_denied = True
                continue
            if any(file.key == target.key for file in files):
                return files
    if is_denied:
        raise PrivilegeError(
            f"{target.name} was replaced, and the version that process {target.pids[0]} maps may not be opened",
            hint=as_root("with CAP_CHECKPOINT_RESTORE"),
        )
    raise NotFoundError(f"{target.name}: no process maps it any more", hint="start the trace again")


def open_mapped(pid: int, mapping: Mapping) -> list[OpenFile]:
    """Open the file of an executable mapping that a process has made, or on an overlay what `layers` gives instead.

    NotFoundError, PrivilegeError, ElfError.
    """
    file = open_mapping(pid, mapping)
    file.path = _name_from_here(pid, mapping.name)
    return layers(file)


def as_seen_by(root: str, name: str) -> str:
    """The path of a mapped file as a process sees it whose /proc/PID/root leads to `root`.

    maps and map_files spell a path as their reader sees it, and from the root of the mounts if these are not the
    reader's. That differs where the process, or the reader, is in a chroot.
    """
    return name.removeprefix(root) if root != "/" and name.startswith(f"{root}/") else name


def _name_from_here(pid: int, name: str) -> str:
    """The path by which we would open what a process calls so."""
    with suppress(OSError):
        if mount_namespace(pid) != mount_namespace("self"):
            return f"/proc/{pid}/root{name}"
    return name


def file_key(path: str) -> FileKey | None:
    """Return device and inode of a regular file, on an overlay those of the file that it shows, as `Target.key` has
    them; None if there is no such file, or we may not see it."""
    try:
        key = _regular_file(path)
    except OSError:
        return None
    return None if key is None else real_key(path, key)


class Scan:
    """Collects the files that processes run.

    `tells_unreadable` says whether processes that may not be inspected are logged. Without root these are all the
    processes of other users, and the command line mentions them only with -v.
    """

    tells_unreadable = True

    def __init__(self) -> None:
        try:
            self._our_mounts = mount_namespace("self")
        except OSError as error:
            raise UnsupportedError(
                f"processes cannot be inspected: /proc/self/ns/mnt: {error.strerror}", hint="mount -t proc proc /proc"
            ) from None
        forget_mounts()
        self.unreadable: list[int] = []
        self._unopened: list[str] = []
        self._files: dict[FileKey, tuple[str, str, list[int]]] = {}
        self._real_keys: dict[FileKey, FileKey] = {}  # by what stat says, which differs on overlays
        # The processes of a file, by mount namespace and by the line of maps without its addresses: a line that many
        # processes have is parsed once, and its file is looked up once. None stands for a line without a file.
        self._known: dict[tuple[str, bytes], list[int] | None] = {}

    def add(self, pid: int) -> None:
        """Add the files of one process; NotFoundError, PrivilegeError."""
        with inspecting(pid):
            maps = maps_of(pid)
            mounts, root = (mount_namespace(pid), os.readlink(f"/proc/{pid}/root")) if maps else ("", "")
        # maps spells a path as its reader sees it, or from the root of the mounts if these are not the reader's.
        prefix = "" if mounts == self._our_mounts else f"/proc/{pid}/root"
        looked_up: set[tuple[int, str]] = set()
        for line in executable_lines(maps):
            where = (mounts, line.partition(b" ")[2])
            if where in self._known:
                pids = self._known[where]
            else:
                mapping = parse(line)
                file = (mapping.identity.inode, mapping.name)
                if file in looked_up:
                    continue
                looked_up.add(file)
                pids = self._pids_of(pid, mapping, prefix, root, where)
            if pids is not None and pid not in pids[-1:]:
                pids.append(pid)

    def _pids_of(
        self, pid: int, mapping: Mapping, prefix: str, root: str, where: tuple[str, bytes]
    ) -> list[int] | None:
        """The list of the processes that map the file of a mapping, None where that is no file that can be opened."""
        if not mapping.identity.inode:
            self._known[where] = None
            return None
        try:
            reached = _reach(pid, mapping, prefix)
        except PermissionError:
            self._unopened.append(f"{mapping.name} of process {pid}")
            return None
        if reached is None:
            return None
        path, key = reached
        real = self._real_keys.get(key)
        if real is None:
            real = self._real_keys[key] = real_key(path, key)
        pids = self._files.setdefault(real, (path, as_seen_by(root, mapping.name), []))[2]
        if path == prefix + mapping.name:
            self._known[where] = pids
        return pids

    def targets(self) -> list[Target]:
        """Return the files found so far."""
        return [Target(path, name, tuple(pids), key) for key, (path, name, pids) in self._files.items()]

    def warn(self) -> None:
        """Log what could not be read, in one warning. At the level INFO it names all the processes."""
        unreadable = self.unreadable if self.tells_unreadable else []
        if not unreadable and not self._unopened:
            return
        import logging  # lazy: importing it costs more than the scan of a process, and there is seldom something to say

        logger = logging.getLogger(__name__)
        parts = []
        if unreadable:
            shown = unreadable if logger.isEnabledFor(logging.INFO) else unreadable[:_SHOWN]
            names = ", ".join([f"{pid} ({name_of(pid)})" for pid in shown] + ["…"] * (len(shown) < len(unreadable)))
            parts.append(f"processes that may not be inspected: {len(unreadable)}: {names}")
        if self._unopened:
            parts.append(f"mapped files that may not be opened: {len(self._unopened)}, the first {self._unopened[0]}")
        logger.warning("%s%s", "; ".join(parts), "" if os.geteuid() == 0 else " (root can see all)")


def _mappings_of_files(pid: int) -> list[Mapping]:
    """The first executable mapping of each file of a process; OSError if it has ended or may not be inspected."""
    first: dict[tuple[int, str], Mapping] = {}
    for mapping in executable_mappings(maps_of(pid)):
        if mapping.identity.inode:
            first.setdefault((mapping.identity.inode, mapping.name), mapping)
    return list(first.values())


def _reach(pid: int, mapping: Mapping, prefix: str) -> tuple[str, FileKey] | None:
    """A path that opens the mapped file, and the file; None if it is no regular file, or gone. PermissionError."""
    by_name = _regular_file(prefix + mapping.name)
    if by_name is not None and by_name[1] == mapping.identity.inode:
        return prefix + mapping.name, by_name
    # It was deleted or replaced, or is a memfd, or its file system shows one inode number to stat and another in maps,
    # as overlayfs does.
    link = f"/proc/{pid}/map_files/{mapping.span}"
    mapped = _regular_file(link)
    if mapped is None:
        return None
    return (prefix + mapping.name if mapped == by_name else link), mapped


def _regular_file(path: str) -> FileKey | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
