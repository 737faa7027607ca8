"""The bytes of a provider file → a file that can be mapped executable, that all can read and no other user can change.

Input: a name from `loading`, and a function that makes the bytes if there is no such file. Output: the path and the
content for `usdtkit._probe.load`. The file is never removed here. Its name is a hash of its content, so all workers of
a service map one inode, and a tracer can attach to it before a process starts.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from usdtkit.directories import candidates
from usdtkit.errors import UnsupportedError, UsdtkitError
from usdtkit.privatedirs import (
    OwnDirectory,
    UntrustedError,
    fill,
    open_directory,
    open_entry,
    read_all,
    write_below,
    write_file,
)

# From <linux/memfd.h>; in the os module only since Python 3.13.
_MFD_EXEC = 0x0010
_HINT = "set USDTKIT_DIR to a directory of your own, on a file system that is not mounted noexec"

# More bytes than a provider's file can have: its notes are limited, and a probe takes a few hundred bytes.
_MAX_SIZE = 64 << 20


class Stored(NamedTuple):
    """A file that may be loaded, with its content."""

    path: str
    content: bytes


Check = Callable[[bytes], bool]
"""Returns whether these bytes are those of the expected file."""


def store(name: str, make: Callable[[], bytes], check: Check) -> Stored:
    """Return a trusted file of this name from the first directory that allows it.

    A file that exists is returned if `check` accepts it; else one with the bytes of `make()` is written. Raises
    UnsupportedError with the reason of each directory.
    """
    reasons = []
    for directory in candidates():
        try:
            return _store_in(directory, name, make, check)
        except (UntrustedError, OSError) as error:
            reasons.append(f"{directory}: {error.strerror if isinstance(error, OSError) else error}")
    raise UnsupportedError(f"no directory can hold the probe file {name} ({'; '.join(reasons)})", hint=_HINT)


def find(path: Path, check: Check) -> Stored:
    """Return a file that was built ahead of time, if it may be loaded and `check` accepts it.

    Raises UnsupportedError.
    """
    try:
        with _open_directory(str(path.parent)) as directory:
            real, content = directory.path, _read(directory.descriptor, path.name, check)
    except (UntrustedError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnsupportedError(f"the probe file {path} cannot be used: {reason}", hint=_HINT) from error
    if content is None:
        what = "does not hold these probes" if path.exists() else "does not exist"
        raise UnsupportedError(f"the probe file {path} {what}", hint="build it again: usdtkit provider build")
    return Stored(f"{real}/{path.name}", content)


def write(path: Path, content: bytes) -> None:
    """Write a file to `path` in one step, readable by all. Raises UsdtkitError."""
    try:
        write_file(str(path), content)
    except OSError as error:
        raise UsdtkitError(f"cannot write {path}: {error.strerror}") from error


def store_in_memory(name: str, image: bytes) -> str:
    """Return a path under /proc to an anonymous file with these bytes. It stays open, for bcc to find it."""
    try:
        # From Linux 6.3 on, the flag says that the file may be executed. Older kernels do not know it, and a kernel
        # with vm.memfd_noexec=2 refuses it.
        try:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC | _MFD_EXEC)
        except OSError:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        fill(descriptor, image, 0o644)
    except OSError as error:
        raise UnsupportedError(f"no anonymous file for the probes {name}: {error.strerror}", hint=_HINT) from error
    # Not /proc/self, so that a debugger that opens the path finds the same file.
    return f"/proc/{os.getpid()}/fd/{descriptor}"


# Directories that have been checked: the name of each → its real path. Only root and this user can have changed them
# since then, so they are not checked again; each file is.
_checked: dict[str, str] = {}


def _store_in(directory: str, name: str, make: Callable[[], bytes], check: Check) -> Stored:
    if directory in _checked:
        path = f"{_checked[directory]}/{name}"
        try:
            # Another file of this directory was mapped executable. If this one cannot be, dlopen says so.
            if content := _read(None, path, check, mapped=False):
                return Stored(path, content)
        except (UntrustedError, OSError):
            del _checked[directory]  # check it again, and report what is wrong
    with _open_directory(directory, make=True) as handle:
        if handle.made:
            # Independent of the umask, because tracers of other users read the files too.
            os.chmod(".", 0o755, dir_fd=handle.descriptor)
        content = _read(handle.descriptor, name, check)
        if content is None:
            _publish(handle.descriptor, name, make())
            content = _read(handle.descriptor, name, check)
            if content is None:
                raise UntrustedError(f"{name} was changed by somebody else")
        _checked[directory] = handle.path
        return Stored(f"{handle.path}/{name}", content)


def _open_directory(path: str, *, make: bool = False) -> OwnDirectory:
    directory = open_directory(path, make=make)
    if os.fstatvfs(directory.descriptor).f_flag & os.ST_NOEXEC:
        directory.close()
        raise UntrustedError("mounted noexec")
    return directory


def _read(directory: int | None, name: str, check: Check, *, mapped: bool = True) -> bytes | None:
    """Return the bytes of a file that `check` accepts and that can be mapped executable; None if there is none.

    Raises UntrustedError for a file that another user could have written.
    """
    try:
        descriptor, status = open_entry(directory, name, {0, os.geteuid()})
    except FileNotFoundError:
        return None
    try:
        # The file is read and not mapped, because a mapping shows the breakpoints of tracers that are attached.
        content = read_all(descriptor, min(status.st_size, _MAX_SIZE))
        if not check(content):
            return None
        # A policy (SELinux, a container's) may forbid an executable mapping although the mount allows it, so one is
        # made.
        if mapped:
            mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        return content
    finally:
        os.close(descriptor)


def _publish(directory: int, name: str, image: bytes) -> None:
    """Write the file in one step. A file of this name with other bytes is replaced."""
    with _nameless(directory) as descriptor:
        if descriptor is not None:
            fill(descriptor, image, 0o644)
            with suppress(FileExistsError):
                _link(descriptor, directory, name)
                return
    # The file system has no nameless files, or a damaged file has the name: only a rename replaces that in one step.
    write_below(directory, name, image, 0o644)


@contextmanager
def _nameless(directory: int) -> Iterator[int | None]:
    """Open a file without a name, which a crash does not leave behind; None if the file system has no such files."""
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
