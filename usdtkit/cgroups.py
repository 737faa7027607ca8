"""Names of cgroups and containers → the numbers that the kernel has for them. Used by `usdtkit.cli.tracing`.

A cgroup's number is the inode of its directory, in the unified hierarchy (version 2).
"""

# ruff: noqa: PTH118

from __future__ import annotations

import os
from collections.abc import Iterator

from usdtkit.errors import NotFoundError, UnsupportedError, UsageError

MAX_CGROUPS = 64
_SHORTEST_ID = 12  # of a container, as their tools print it


def cgroup_ids(name: str) -> list[int]:
    """Return the numbers of a cgroup and of all that are below it now.

    `name` is a path, absolute or below the mount of the hierarchy; or the name of a directory in it; or the first 12 or
    more digits of a container's id. NotFoundError, UsageError where it means several or has too many below it.
    """
    root = _mount()
    cgroup = next((path for path in (name, os.path.join(root, name.strip("/"))) if _is_cgroup(path)), None)
    if cgroup is None:
        matching = [path for path in _below(root) if _is_called(path.rpartition("/")[2], name)]
        if len(matching) > 1:
            raise UsageError(f"{name!r} is the name of {len(matching)} cgroups", hint=f"one of {', '.join(matching)}")
        if not matching:
            raise NotFoundError(f"no cgroup or container {name!r} below {root}", hint="systemd-cgls shows them")
        (cgroup,) = matching
    numbers = [os.stat(path).st_ino for path in _below(cgroup)]  # noqa: PTH116
    if len(numbers) > MAX_CGROUPS:
        raise UsageError(
            f"there are {len(numbers) - 1} cgroups below {cgroup}", hint=f"at most {MAX_CGROUPS} can be told apart"
        )
    return numbers


def _is_cgroup(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "cgroup.procs"))  # noqa: PTH113


def _below(path: str) -> Iterator[str]:
    return (directory for directory, _, _ in os.walk(path))


def _is_called(directory: str, name: str) -> bool:
    """Whether a directory is the cgroup: docker-0123456789ab….scope belongs to the container 0123456789ab."""
    is_id = len(name) >= _SHORTEST_ID and all(digit in "0123456789abcdef" for digit in name)
    return directory == name or (is_id and name in directory)


def _mount() -> str:
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:  # noqa: PTH123
        for line in mounts:
            _, path, kind, *_ = line.split()
            if kind == "cgroup2":
                return path
    raise UnsupportedError("no cgroup2 file system is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup")
