"""The bytes of a provider file → a file that can be mapped executable, that all may read and no stranger can change.

Input: name and bytes from `image`, which makes the bytes only for a file that is not there. Output: path and content
for `usdtkit._probe.load`. The file stays: its name is a hash of its content, so every worker of a service maps one
inode, and a tracer can attach to it before a process starts.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from usdtkit.directories import candidates
from usdtkit.errors import UnsupportedError, UsdtkitError

# From <linux/memfd.h>; in the os module only since Python 3.13.
_MFD_EXEC = 0x0010
_HINT = "let USDTKIT_DIR name a directory of your own on a file system that is mounted executable"


# More than a provider's file can have: notes are limited, and each probe takes a few hundred bytes.
_LARGEST = 64 << 20
# Neither a symbolic link nor a FIFO that a stranger has put there may lead us on or hold us up.
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Unusable(UsdtkitError):
    """This directory cannot hold provider files; the next may."""


class Stored(NamedTuple):
    """A file that may be loaded, and what is in it."""

    path: str
    content: bytes


Check = Callable[[bytes], bool]
"""Whether these bytes are the file that is wanted."""


def store(name: str, make: Callable[[], bytes], check: Check) -> Stored:
    """Return a trusted file `name`: one that is there and passes, else one of `make()`'s bytes.

    In the first directory that allows it. Raises UnsupportedError, with the reason of each.
    """
    reasons = []
    for directory in candidates():
        try:
            return _store_in(directory, name, make, check)
        except (_Unusable, OSError) as error:
            reasons.append(f"{directory}: {error.strerror if isinstance(error, OSError) else error}")
    raise UnsupportedError(f"no directory can hold the probe file {name} ({'; '.join(reasons)})", hint=_HINT)


def find(path: Path, check: Check) -> Stored:
    """Return a file that was built ahead of time, if it may be loaded and passes. Raises UnsupportedError."""
    try:
        real = path.parent.resolve(strict=True)
        with _open_directory(real) as handle:
            _check_directory(handle, real)
            content = _read(handle, path.name, check)
    except (_Unusable, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnsupportedError(f"the probe file {path} cannot be used: {reason}", hint=_HINT) from error
    if content is None:
        what = "does not hold these probes" if path.exists() else "does not exist"
        raise UnsupportedError(f"the probe file {path} {what}", hint="build it again: usdtkit provider build")
    return Stored(str(real / path.name), content)


def write(path: Path, content: bytes) -> None:
    """Put a file at `path` in one step, readable by all. Raises UsdtkitError."""
    try:
        with _open_directory(path.parent) as handle:
            _rename_into(handle, path.name, content)
    except OSError as error:
        raise UsdtkitError(f"cannot write {path}: {error.strerror}") from error


def store_in_memory(name: str, image: bytes) -> str:
    """Return a path under /proc to an anonymous file with these bytes, which stays open: bcc finds it only so."""
    try:
        # Linux 6.3 wants to be told that it may be executable, and refuses to hear it where vm.memfd_noexec is 2;
        # older ones do not know the flag.
        try:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC | _MFD_EXEC)
        except OSError:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        _write(descriptor, image)
    except OSError as error:
        raise UnsupportedError(f"no anonymous file for the probes {name}: {error.strerror}", hint=_HINT) from error
    # Not /proc/self: a debugger that opens the path must find the same file.
    return f"/proc/{os.getpid()}/fd/{descriptor}"


# Directories that were found to be right, by what they are called, with the directory that is meant. Only root and we
# could have made them wrong since; each file is checked every time.
_right: dict[str, str] = {}


def _store_in(directory: str, name: str, make: Callable[[], bytes], check: Check) -> Stored:
    if directory in _right:
        path = f"{_right[directory]}/{name}"
        try:
            # That this can be mapped executable was seen with another file: dlopen will say it if it cannot.
            if content := _read(None, path, check, mapped=False):
                return Stored(path, content)
        except (_Unusable, OSError):
            del _right[directory]  # look again from the start, and say what is wrong
    made = _make(Path(directory))
    real = Path(directory).resolve(strict=True)
    with _open_directory(real) as handle:
        _check_directory(handle, real)
        if made:
            # Whatever the umask is: the files are for other users' tracers too.
            os.fchmod(handle, 0o755)
        content = _read(handle, name, check)
        if content is None:
            _publish(handle, name, make())
            content = _read(handle, name, check)
            if content is None:
                raise _Unusable(f"{name} was changed by somebody else")
    _right[directory] = str(real)
    return Stored(str(real / name), content)


@contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _check_directory(handle: int, real: Path) -> None:
    _check_owner(os.fstat(handle), str(real))
    for ancestor in real.parents:
        _check_owner(ancestor.stat(), str(ancestor))
    if os.fstatvfs(handle).f_flag & os.ST_NOEXEC:
        raise _Unusable("mounted noexec")


def _make(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _check_owner(status: os.stat_result, what: str) -> None:
    """Refuse what somebody else than root and us owns or can change; in a sticky directory only owners rename."""
    if status.st_uid not in (0, os.geteuid()):
        raise _Unusable(f"{what} belongs to another user (uid {status.st_uid})")
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise _Unusable(f"{what} can be written by other users")


def _read(directory: int | None, name: str, check: Check, *, mapped: bool = True) -> bytes | None:
    """The bytes of a file that passes and can be mapped executable; None without one. Raises for one not to trust."""
    try:
        descriptor = os.open(name, _READING, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable(f"{name} is not a regular file")
        _check_owner(status, name)
        # Read, not mapped: in a mapping the kernel would show the breakpoints of a tracer that is attached already.
        size = min(status.st_size, _LARGEST)
        content = os.read(descriptor, size + 1)
        while len(content) < size and (more := os.read(descriptor, size + 1 - len(content))):
            content += more
        if not check(content):
            return None
        # The file system may refuse what its mount flags allow (SELinux, a container's policy): ask for a mapping.
        if mapped:
            mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        return content
    finally:
        os.close(descriptor)


def _publish(directory: int, name: str, image: bytes) -> None:
    """Put the file in place in one step; one that is there with other bytes is replaced."""
    with _nameless(directory) as descriptor:
        if descriptor is not None:
            _write(descriptor, image)
            with suppress(FileExistsError):
                _link(descriptor, directory, name)
                return
    # No nameless files here, or a damaged file has the name: only a rename replaces it in one step.
    _rename_into(directory, name, image)


def _rename_into(directory: int, name: str, image: bytes) -> None:
    temporary = f".{name}.{os.urandom(6).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            _write(descriptor, image)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


@contextmanager
def _nameless(directory: int) -> Iterator[int | None]:
    """Open a file without a name, which a crash does not leave behind; None where the file system has no such thing."""
    try:
        descriptor = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _link(descriptor: int, directory: int, name: str) -> None:
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)


def _write(descriptor: int, image: bytes) -> None:
    view = memoryview(image)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchmod(descriptor, 0o644)
