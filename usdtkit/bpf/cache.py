"""Compiled bytecode on disk: key (a hash) → the compiler's answer. Used by `compiler`, shown by `usdtkit cache`.

One file an entry in $USDTKIT_CACHE, else $XDG_CACHE_HOME/usdtkit/bytecode, else ~/.cache/usdtkit/bytecode. What is
read from there runs in the kernel, so the directory must be ours and closed to everybody else; where it is not, or
the disk is full, there is no cache, and the only difference is time. Beyond LIMIT bytes the entries go that were not
used for longest.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

LIMIT = 32 << 20


def directory() -> Path:
    """Where entries lie, whether or not it exists."""
    explicit = os.environ.get("USDTKIT_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 Path.home() can raise
    return Path(base) / "usdtkit" / "bytecode"


def load(key: str) -> bytes | None:
    """The entry, or None where there is none or the directory is not to be trusted."""
    place = directory()
    if not _is_private(place):
        return None
    entry = place / key
    try:
        content = entry.read_bytes()
        changed = entry.stat().st_mtime_ns
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
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(place):
            return
        descriptor, temporary = tempfile.mkstemp(dir=place, prefix=".new-")
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).rename(place / key)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
    _prune()


def entries() -> list[tuple[Path, os.stat_result]]:
    """Every entry and its status, the one that was used last first; none where the directory is not to be trusted."""
    place = directory()
    if not _is_private(place):
        return []
    found = []
    for path in place.iterdir():
        with suppress(OSError):  # another process has just cleared it
            found.append((path, path.stat()))
    return sorted(found, key=lambda entry: -entry[1].st_atime_ns)


def clear() -> int:
    """Remove all entries; how many there were."""
    found = entries()
    for path, _ in found:
        path.unlink(missing_ok=True)
    return len(found)


def _prune() -> None:
    total = 0
    for path, status in entries():
        total += status.st_size
        if total > LIMIT:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _is_private(place: Path) -> bool:
    try:
        status = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
