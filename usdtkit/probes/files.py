"""The bytes of a provider file → a file that can be mapped executable, that all may read and no stranger can change.

Input: name and bytes from `image`, which makes the bytes only for a file that is not there. Output: path and content
for `usdtkit._probe.load`. The file stays: its name is a hash of its content, so every worker of a service maps one
inode, and a tracer can attach to it before a process starts.
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
_HINT = "let USDTKIT_DIR name a directory of your own on a file system that is mounted executable"


# More than a provider's file can have: notes are limited, and each probe takes a few hundred bytes.
_LARGEST = 64 << 20


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
        except (UntrustedError, OSError) as error:
            reasons.append(f"{directory}: {error.strerror if isinstance(error, OSError) else error}")
    raise UnsupportedError(f"no directory can hold the probe file {name} ({'; '.join(reasons)})", hint=_HINT)


def find(path: Path, check: Check) -> Stored:
    """Return a file that was built ahead of time, if it may be loaded and passes. Raises UnsupportedError."""
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
    """Put a file at `path` in one step, readable by all. Raises UsdtkitError."""
    try:
        write_file(str(path), content)
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
        fill(descriptor, image, 0o644)
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
        except (UntrustedError, OSError):
            del _right[directory]  # look again from the start, and say what is wrong
    with _open_directory(directory, make=True) as handle:
        if handle.made:
            # Whatever the umask is: the files are for other users' tracers too.
            os.chmod(".", 0o755, dir_fd=handle.descriptor)
        content = _read(handle.descriptor, name, check)
        if content is None:
            _publish(handle.descriptor, name, make())
            content = _read(handle.descriptor, name, check)
            if content is None:
                raise UntrustedError(f"{name} was changed by somebody else")
        _right[directory] = handle.path
        return Stored(f"{handle.path}/{name}", content)


def _open_directory(path: str, *, make: bool = False) -> OwnDirectory:
    directory = open_directory(path, make=make)
    if os.fstatvfs(directory.descriptor).f_flag & os.ST_NOEXEC:
        directory.close()
        raise UntrustedError("mounted noexec")
    return directory


def _read(directory: int | None, name: str, check: Check, *, mapped: bool = True) -> bytes | None:
    """The bytes of a file that passes and can be mapped executable; None without one. Raises for one not to trust."""
    try:
        descriptor, status = open_entry(directory, name, {0, os.geteuid()})
    except FileNotFoundError:
        return None
    try:
        # Read, not mapped: in a mapping the kernel would show the breakpoints of a tracer that is attached already.
        content = read_all(descriptor, min(status.st_size, _LARGEST))
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
            fill(descriptor, image, 0o644)
            with suppress(FileExistsError):
                _link(descriptor, directory, name)
                return
    # No nameless files here, or a damaged file has the name: only a rename replaces it in one step.
    write_below(directory, name, image, 0o644)


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
