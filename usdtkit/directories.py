"""Where provider files lie: nothing in, paths out. The one list for the side that writes them and the side that looks.

Used by `usdtkit.probes` (which directory may this process write to) and `usdtkit.targets` (where to look for probes of
services that may not even run yet). Imports nothing of ours.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_SYSTEM = Path("/run/usdtkit")
_USERS = Path("/run/user")
# For services without a home. Many systems mount /run noexec; root makes the first of these, anybody the second.
_CACHE = Path("/var/cache/usdtkit")
_TEMPORARY = Path("/var/tmp")
_last: list[Any] = [None, []]


def application_directories() -> list[Path]:
    """Where this process may put provider files, best first; they need not exist or be writable.

    $USDTKIT_DIR, /run/usdtkit, $XDG_RUNTIME_DIR/usdtkit, ~/.cache/usdtkit; then for services $CACHE_DIRECTORY/usdtkit
    (systemd's CacheDirectory=), /var/cache/usdtkit and /var/tmp/usdtkit-UID.
    """
    named = tuple(map(os.environ.get, ("USDTKIT_DIR", "XDG_RUNTIME_DIR", "CACHE_DIRECTORY", "HOME")))
    # Asked for at each load, and the same as long as these are.
    if _last[0] != (*named, os.geteuid(), _TEMPORARY):
        own = _TEMPORARY / f"usdtkit-{os.geteuid()}"
        found = _unique([*_chosen(), _SYSTEM, *_runtime(), *_home(), *_service(), _CACHE, own])
        _last[:] = (*named, os.geteuid(), _TEMPORARY), found
    return list(_last[1])


def provider_directories() -> list[Path]:
    """Where provider files of any user may lie: those of `application_directories`, and the same of other users.

    /run/user/*/usdtkit and /var/tmp/usdtkit-*, but no other user's home.
    """
    users = _glob(_USERS, "*/usdtkit")
    return _unique([*application_directories(), *users, *_glob(_TEMPORARY, "usdtkit-*")])


def _glob(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))
    except OSError:  # not every system has it
        return []


def _chosen() -> list[Path]:
    return [Path(chosen)] if (chosen := os.environ.get("USDTKIT_DIR")) else []


def _runtime() -> list[Path]:
    return [Path(runtime, "usdtkit")] if (runtime := os.environ.get("XDG_RUNTIME_DIR")) else []


def _home() -> list[Path]:
    # relative where the user has no home: then there is no such directory
    home = os.path.expanduser("~")  # noqa: PTH111 Path.home() raises there
    return [Path(home, ".cache", "usdtkit")] if home.startswith("/") else []


def _service() -> list[Path]:
    # systemd separates several by colons
    return [Path(each, "usdtkit") for each in os.environ.get("CACHE_DIRECTORY", "").split(":") if each.startswith("/")]


def _unique(paths: list[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))
