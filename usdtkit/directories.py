"""Where provider files lie: nothing in, paths out. The one list for the side that writes them and the side that looks.

Used by `usdtkit.probes` (which directory may this process write to) and `usdtkit.targets` (where to look for probes of
services that may not even run yet). Imports nothing of ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_SYSTEM = "/run/usdtkit"
_USERS = Path("/run/user")
# For services without a home. Many systems mount /run noexec; root makes the first of these, anybody the second.
_CACHE = "/var/cache/usdtkit"
_TEMPORARY = Path("/var/tmp")


def candidates() -> Iterator[str]:
    """Where this process may put provider files, best first; they need not exist or be writable.

    $USDTKIT_DIR, /run/usdtkit, $XDG_RUNTIME_DIR/usdtkit, ~/.cache/usdtkit; then for services $CACHE_DIRECTORY/usdtkit
    (systemd's CacheDirectory=), /var/cache/usdtkit and /var/tmp/usdtkit-UID. One at a time, since mostly the first
    will do, and the start of an application waits for it.
    """
    if chosen := os.environ.get("USDTKIT_DIR"):
        yield chosen
    yield _SYSTEM
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/usdtkit"
    # relative where the user has no home: then there is no such directory
    home = os.path.expanduser("~")  # noqa: PTH111 Path.home() raises there
    if home.startswith("/"):
        yield f"{home}/.cache/usdtkit"
    # systemd separates several by colons
    for each in os.environ.get("CACHE_DIRECTORY", "").split(":"):
        if each.startswith("/"):
            yield f"{each}/usdtkit"
    yield _CACHE
    yield f"{_TEMPORARY}/usdtkit-{os.geteuid()}"


def application_directories() -> list[Path]:
    """All `candidates`."""
    return _unique(map(Path, candidates()))


def provider_directories() -> list[Path]:
    """Where provider files of any user may lie: those of `application_directories`, and the same of other users.

    These are /run/user/UID/usdtkit and /var/tmp/usdtkit-UID, where they belong to the user UID, to root or to us.
    Anybody can make directories of such names, but no application would use one of somebody else.
    """
    users = [path for path in _glob(_USERS, "*/usdtkit") if _belongs_to(path, path.parent.name)]
    temporary = [path for path in _glob(_TEMPORARY, "usdtkit-*") if _belongs_to(path, path.name.partition("-")[2])]
    return _unique([*application_directories(), *users, *temporary])


def _glob(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))
    except OSError:  # not every system has it
        return []


def _belongs_to(directory: Path, user: str) -> bool:
    try:
        status = directory.lstat()
    except OSError:  # gone, or not to be seen
        return False
    # No link, which its owner could point elsewhere once it was looked at.
    return stat.S_ISDIR(status.st_mode) and (str(status.st_uid) == user or status.st_uid in (0, os.geteuid()))


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))
