"""Compiled bytecode on disk: key (a hash) → the compiler's answer. Used by `compiler`, shown by `usdtkit cache`.

One file an entry in $USDTKIT_CACHE, else $XDG_CACHE_HOME/usdtkit/bytecode, else ~/.cache/usdtkit/bytecode, else, for
users without a home, /var/tmp/usdtkit.UID. What is read from there runs in the kernel, so the directory must be ours
and closed to everybody else; where it is not, or the disk is full, there is no cache, and the only difference is time.
Beyond LIMIT bytes the entries go that were not used for longest.
"""

# pathlib is dear, and a warm start comes by here.
# ruff: noqa: PTH103, PTH105, PTH108, PTH111, PTH116, PTH123

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

LIMIT = 32 << 20


def directory() -> str:
    """Where entries lie, whether or not it exists."""
    if chosen := os.environ.get("USDTKIT_CACHE"):
        return chosen
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if base.startswith("/"):  # elsewhere than in the directory where one happens to be
            return f"{base}/usdtkit/bytecode"
    # Not below a directory that another user could make first, and then exchange what is in it.
    return f"/var/tmp/usdtkit.{os.geteuid()}"


def load(key: str) -> bytes | None:
    """The entry, or None where there is none or the directory is not to be trusted."""
    place = directory()
    if not _is_private(place):
        return None
    entry = f"{place}/{key}"
    try:
        with open(entry, "rb") as file:
            content = file.read()
            changed = os.stat(file.fileno()).st_mtime_ns
    except OSError:
        return None
    with suppress(OSError):  # a cache that may only be read is one all the same
        os.utime(entry, ns=(time.time_ns(), changed))
    return content


def store(key: str, content: bytes) -> None:
    """Keep an entry; readers and other writers see all of it or nothing."""
    import tempfile  # costs more than a warm start has to spare

    place = directory()
    try:
        os.makedirs(place, 0o700, exist_ok=True)
        if not _is_private(place):
            return
        descriptor, temporary = tempfile.mkstemp(dir=place, prefix=".new-")
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, f"{place}/{key}")
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
    _prune()


def entries() -> list[tuple[str, os.stat_result]]:
    """The path and status of each, the one that was used last first; none where the directory is not to be trusted."""
    place = directory()
    if not _is_private(place):
        return []
    found = []
    with os.scandir(place) as listed:
        for entry in listed:
            with suppress(OSError):  # another process has just cleared it
                found.append((entry.path, os.stat(entry.path)))
    return sorted(found, key=lambda entry: -entry[1].st_atime_ns)


def clear() -> int:
    """Remove all entries; how many there were."""
    found = entries()
    for path, _ in found:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return len(found)


def _prune() -> None:
    total = 0
    for path, status in entries():
        total += status.st_size
        if total > LIMIT:
            with suppress(OSError):
                os.unlink(path)


def _is_private(place: str) -> bool:
    try:
        status = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
