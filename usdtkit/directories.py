"""Where provider files lie: nothing in, paths out. The one list for the side that writes them and the side that looks.

Used by `usdtkit.probes` (which directory may this process write to) and `usdtkit.targets` (where to look for probes of
services that may not even run yet). Imports nothing of ours.
"""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = Path("/run/usdtkit")
_USERS = Path("/run/user")


def application_directories() -> list[Path]:
    """Where this process may put provider files, best first; they need not exist or be writable.

    $USDTKIT_DIR, /run/usdtkit, $XDG_RUNTIME_DIR/usdtkit, ~/.cache/usdtkit.
    """
    return _unique([*_chosen(), _SYSTEM, *_runtime(), *_cache()])


def provider_directories() -> list[Path]:
    """Where provider files of any user may lie: those of `application_directories`, and /run/user/*/usdtkit."""
    try:
        users = sorted(entry / "usdtkit" for entry in _USERS.iterdir())
    except OSError:  # not every system has it
        users = []
    return _unique([*_chosen(), _SYSTEM, *_runtime(), *users, *_cache()])


def _chosen() -> list[Path]:
    return [Path(chosen)] if (chosen := os.environ.get("USDTKIT_DIR")) else []


def _runtime() -> list[Path]:
    return [Path(runtime, "usdtkit")] if (runtime := os.environ.get("XDG_RUNTIME_DIR")) else []


def _cache() -> list[Path]:
    # relative where the user has no home: then there is no such directory
    home = os.path.expanduser("~")  # noqa: PTH111 Path.home() raises there
    return [Path(home, ".cache", "usdtkit")] if home.startswith("/") else []


def _unique(paths: list[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))
