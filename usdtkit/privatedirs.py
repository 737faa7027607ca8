"""Directories and files that no other user can have tampered with: a path in, an open and checked descriptor out.

Programs that run in the kernel or in an application are read from directories: the cache of bytecode, bundles, provider
files. A user who can write to such a directory, or rename one of the directories above it, decides what runs. A check
of a path by its name proves nothing, because the path may lead elsewhere a moment later. So every component of the path
is opened in turn, without following symbolic links of other users, and is checked on the open descriptor: it must
belong to root or to us, and nobody else may be able to rename its entries. After that, everything happens relative to
the open directory, and an entry is checked on its own descriptor before it is read.

Used by `usdtkit.bpf` and `usdtkit.probes` to keep what they trust, and by commands to write what the user asked for.
The paths that are returned are for messages, and for callers that pass them to the dynamic loader.
"""

# Every start of a command runs this, and importing pathlib takes time.
# ruff: noqa: PTH109, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from types import TracebackType

from usdtkit.errors import PrivilegeError

_MOST_LINKS = 40  # as many as the kernel follows
# Systems without it have no probes either, but applications import this module there too.
_PATH: int = getattr(os, "O_PATH", 0)
_PLACE = _PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# A symbolic link that somebody has put there must not lead elsewhere, and a FIFO must not block.
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UntrustedError(PrivilegeError):
    """Another user owns, or could change, a file or directory that must be ours."""


class OwnDirectory:
    """An open directory in which only root and we can change anything. A context manager; `close` ends it.

    `path` is its path without symbolic links, for messages. `made` says whether it was created just now.
    """

    __slots__ = ("_owners", "descriptor", "made", "path")

    def __init__(self, path: str, descriptor: int, made: bool, owners: Collection[int]) -> None:
        """Take over a descriptor that was checked. Callers use `open_directory`."""
        self.path = path
        self.descriptor = descriptor
        self.made = made
        self._owners = owners

    def __enter__(self) -> OwnDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory. Closing it again is harmless."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """Open the entry `name` for reading: (descriptor, status), which the caller closes.

        UntrustedError where it is not a regular file, or another user owns it or can write to it; OSError where it does
        not exist or is a symbolic link.
        """
        return open_entry(self.descriptor, name, self._owners)

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Create or replace the file `name` with these bytes, in one step. The umask does not change `mode`.

        OSError where that is not possible; then nothing is left behind.
        """
        write_below(self.descriptor, name, content, mode)

    def remove(self, name: str) -> bool:
        """Remove the entry `name` if it is a regular file of ours. Return whether it was removed."""
        try:
            place = os.open(name, _PLACE, dir_fd=self.descriptor)
        except FileNotFoundError:  # another process has removed it
            return False
        try:
            status = os.fstat(place)
        finally:
            os.close(place)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)
            return True
        return False

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield (name, status) of each entry. Symbolic links are not followed."""
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            with os.scandir(readable) as listed:
                names = [entry.name for entry in listed]
        finally:
            os.close(readable)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                yield name, os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)


def open_directory(
    path: str, *, private: bool = False, make: bool = False, trusted: Collection[int] = ()
) -> OwnDirectory:
    """Open a directory that only root and we can change or replace.

    With `private` it must belong to us and be closed to everybody else, and `path` must not end in a symbolic link.
    `make` creates the missing directories of the path with mode 0755, and a private one with 0700. `trusted` are users
    besides root and us whose directories are accepted. UntrustedError names the directory of the path that cannot be
    trusted. FileNotFoundError means that the directory is missing and could be created; any other OSError, that it
    cannot be used.
    """
    owners = {0, os.geteuid(), *trusted}
    at, where, made, links = _root(owners), "/", False, 0
    try:
        ahead = [part for part in reversed(os.path.join(os.getcwd(), path).split("/")) if part not in ("", ".")]
        while ahead:
            name = ahead.pop()
            here = os.path.dirname(where) if name == ".." else f"{where.rstrip('/')}/{name}"
            try:
                found = os.open(name, _PLACE, dir_fd=at)
            except FileNotFoundError:
                if not make:
                    if not os.access(".", os.W_OK, dir_fd=at, effective_ids=True):
                        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), here) from None
                    raise
                made = _make(name, at, 0o700 if private and not ahead else 0o755) and not ahead
                found = os.open(name, _PLACE, dir_fd=at)
            try:
                status = os.fstat(found)
                if stat.S_ISLNK(status.st_mode):
                    if status.st_uid not in owners:
                        raise UntrustedError(f"{here} belongs to another user (uid {status.st_uid})")
                    if private and not ahead:
                        raise UntrustedError(f"{here} is a symbolic link")
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
                    target = os.readlink("", dir_fd=found)
                    ahead += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                    if not target.startswith("/"):
                        continue
                    os.close(found)
                    found, here = _root(owners), "/"
                elif not stat.S_ISDIR(status.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
                else:
                    _check(status, here, owners)
                at, found, where = found, at, here
            finally:
                os.close(found)
        if private:
            _check_private(os.fstat(at), where)
    except BaseException:
        os.close(at)
        raise
    return OwnDirectory(where, at, made, owners)


@contextlib.contextmanager
def open_file(path: str, *, trusted: Collection[int] = ()) -> Iterator[int]:
    """Open a file for reading that only root, we and the `trusted` users can have written or replaced.

    Yields a descriptor, which is closed afterwards. UntrustedError, OSError.
    """
    for _ in range(_MOST_LINKS):
        above, _, name = path.rpartition("/")
        with open_directory(f"{above}/" if "/" in path else ".", trusted=trusted) as directory:
            place = os.open(name or ".", _PLACE, dir_fd=directory.descriptor)
            try:
                status = os.fstat(place)
                if not stat.S_ISLNK(status.st_mode):
                    descriptor, _ = directory.open(name or ".")
                    break
                if status.st_uid not in {0, os.geteuid(), *trusted}:
                    raise UntrustedError(f"{path} belongs to another user (uid {status.st_uid})")
                path = os.path.join(directory.path, os.readlink("", dir_fd=place))
            finally:
                os.close(place)
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_entry(directory: int | None, name: str, owners: Collection[int]) -> tuple[int, os.stat_result]:
    """Open an entry as `OwnDirectory.open` does, in any open directory, or by a path that was checked before."""
    descriptor = os.open(name, _READING, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{name} is not a regular file")
        _check(status, name, owners)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def write_file(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file that a user has named, in one step. A symbolic link is replaced, and not followed.

    The directory is opened once, so that nobody can replace it between writing the file and renaming it. OSError.
    """
    above, _, name = path.rpartition("/")
    directory = os.open(f"{above}/" if "/" in path else ".", _PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):  # the rename would replace a directory or a device
                raise OSError(errno.EEXIST, "is not a regular file", path)
        write_below(directory, name, content, mode)
    finally:
        os.close(directory)


def write_below(directory: int, name: str, content: bytes, mode: int) -> None:
    """Write a file as `OwnDirectory.write` does, in any open directory."""
    temporary = f".{name}.{os.urandom(6).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            fill(descriptor, content, mode)
        finally:
            os.close(descriptor)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def fill(descriptor: int, content: bytes, mode: int) -> None:
    """Write all of the bytes to a new file, and set its mode, whatever the umask is."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchmod(descriptor, mode)


def read_all(descriptor: int, size: int) -> bytes:
    """Read a file to its end, but at most one byte more than `size`, by which a caller sees that it has grown."""
    parts, left = [], size + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def stranger(path: str) -> int | None:
    """Return the user who owns a file, if that is neither root nor us; else, and where there is no file, None."""
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return None
    return None if owner in (0, os.geteuid()) else owner


def user_name(uid: int) -> str:
    """Return a user as shown in messages: "ada (uid 1000)"."""
    import pwd  # lazy: only messages need names

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _root(owners: Collection[int]) -> int:
    descriptor = os.open("/", _PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), "/", owners)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make(name: str, above: int, mode: int) -> bool:
    try:
        os.mkdir(name, mode, dir_fd=above)
    except FileExistsError:  # another process has created it
        return False
    return True


def _check(status: os.stat_result, what: str, owners: Collection[int]) -> None:
    """Refuse what another user owns or can change. In a sticky directory only the owner of an entry can rename it."""
    if status.st_uid not in owners:
        raise UntrustedError(f"{what} belongs to another user (uid {status.st_uid})")
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise UntrustedError(f"{what} can be written by other users")


def _check_private(status: os.stat_result, what: str) -> None:
    if status.st_uid != os.geteuid():
        raise UntrustedError(f"{what} belongs to another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        raise UntrustedError(f"{what} can be entered by other users")
