"""The directories of provider files: one list for the code that writes the files and the code that searches for them.

No input, paths out. Used by `usdtkit.probes`, to find a directory that this process may write to, and by
`usdtkit.resolve`, to find probes of services that may not even run yet. Imports nothing of ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_SYSTEM = "/run/usdtkit"
_USERS = Path("/run/user")
# For services without a home directory, on systems that mount /run noexec. Only root can create the first of these.
_CACHE = "/var/cache/usdtkit"
_TEMPORARY = Path("/var/tmp")


def candidates() -> Iterator[str]:
    """Yield the directories where this process may put provider files, the best first. They need not exist.

    These are $USDTKIT_DIR, /run/usdtkit, $XDG_RUNTIME_DIR/usdtkit, ~/.cache/usdtkit; then for services
    $CACHE_DIRECTORY/usdtkit (systemd's CacheDirectory=), /var/cache/usdtkit and /var/tmp/usdtkit-UID. This is a
    generator because the first one mostly serves, and the start of an application waits for it.
    """
    if chosen := os.environ.get("USDTKIT_DIR"):
        yield chosen
    yield _SYSTEM
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/usdtkit"
    # The result is relative where the user has no home directory.
    home = os.path.expanduser("~")  # noqa: PTH111 Path.home() raises there
    if home.startswith("/"):
        yield f"{home}/.cache/usdtkit"
    for cache in os.environ.get("CACHE_DIRECTORY", "").split(":"):  # which can be several
        if cache.startswith("/"):
            yield f"{cache}/usdtkit"
    yield _CACHE
    yield f"{_TEMPORARY}/usdtkit-{os.geteuid()}"


def application_directories() -> list[Path]:
    """Return all `candidates` without duplicates."""
    return _unique(map(Path, candidates()))


def provider_directories() -> list[Path]:
    """Return the directories where provider files of any user may lie.

    These are `application_directories` and those of other users: /run/user/UID/usdtkit and /var/tmp/usdtkit-UID, where
    they belong to the user UID, to root or to us. Anybody can create a directory of such a name, but an application
    uses none that belongs to a third user.
    """
    users = [path for path in _glob(_USERS, "*/usdtkit") if _belongs_to(path, path.parent.name)]
    temporary = [path for path in _glob(_TEMPORARY, "usdtkit-*") if _belongs_to(path, path.name.partition("-")[2])]
    return _unique([*application_directories(), *users, *temporary])


def _glob(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))
    except OSError:  # not every system has the directory
        return []


def _belongs_to(directory: Path, user: str) -> bool:
    try:
        status = directory.lstat()
    except OSError:  # it is gone, or we may not see it
        return False
    # A symbolic link is refused, because its owner could let it lead elsewhere after this check.
    return stat.S_ISDIR(status.st_mode) and (str(status.st_uid) == user or status.st_uid in (0, os.geteuid()))


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))
