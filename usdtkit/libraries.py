"""Names of shared libraries: short name or file name in, paths by the loader's cache and directories out.

Used by `usdtkit.targets` to find a library and by `usdtkit.signatures` to know one.
"""

# ruff: noqa: PTH112, PTH113, PTH116, PTH123, PTH208

from __future__ import annotations

import os
import re
import struct
from functools import lru_cache

from usdtkit.architectures import architecture

# A version as in libc-2.31.so, or the hash of a library that a Python wheel brings along: libssl-3e69114b.so.1.1.
_VERSION = r"-[0-9][0-9.]*|-(?=[a-f]*[0-9])[0-9a-f]{6,}|-[0-9a-f]{8}"
_LIBRARY = re.compile(rf"lib(?P<name>[^/]+?)(?P<version>{_VERSION})?\.so(?:\.[0-9A-Za-z.]*)?")
_MUSL = re.compile(r"(?:libc\.musl-|ld-musl-)[^/]*\.so(?:\.[0-9.]*)?")

# What has been a part of the C library since glibc 2.34, and of musl always.
MERGED = frozenset(("pthread", "dl", "rt", "util", "anl"))

_CACHE = "/etc/ld.so.cache"
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER, _CACHE_ENTRY = struct.Struct("<20sII20x"), struct.Struct("<iII12x")
_MUSL_LOADER = f"/lib/ld-musl-{os.uname().machine}.so.1"  # which is its C library; it may be here beside glibc
_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")  # where there is no cache, as with musl


def library_name(path: str) -> str:
    """What -l of a linker takes: "c" for libc.so.6, /lib/libc-2.31.so and musl's. Of a program, its file name."""
    name = path.rpartition("/")[2]
    if _MUSL.fullmatch(name):
        return "c"
    library = _LIBRARY.fullmatch(name)
    return library["name"] if library else name


def is_called(path: str, wanted: str) -> bool:
    """Whether the file at `path` is the library or program `wanted`: a file name, a soname or a short name.

    libpam.so.0 is the name of libpam.so.0.85.1 too, and libc.so.6 that of libc-2.31.so.
    """
    name = path.rpartition("/")[2]
    if name == wanted or name.startswith(f"lib{wanted}.so") or library_name(name) == wanted:
        return True
    soname = _LIBRARY.fullmatch(wanted)
    if soname is None:
        return False
    file = _LIBRARY.fullmatch(name)
    return name.startswith(f"{wanted}.") or bool(file and file["version"] and file["name"] == soname["name"])


def installed(wanted: str) -> list[str]:
    """Paths of the libraries of that name that this machine's programs can load, in the loader's order."""
    try:
        found = _cached_as(wanted, os.stat(_CACHE).st_mtime_ns)
    except OSError:
        found = []
    if not found:
        for directory in _DIRECTORIES:
            if os.path.isdir(directory):
                found = found + sorted(
                    f"{directory}/{name}" for name in os.listdir(directory) if is_called(name, wanted)
                )
    if is_called(_MUSL_LOADER, wanted):
        found = [*found, _MUSL_LOADER]
    return [path for path in dict.fromkeys(found) if os.path.isfile(path)]


@lru_cache(maxsize=64)
def _cached_as(wanted: str, changed: int) -> list[str]:
    """What the loader's cache, as it was then, has of that name: a tool asks for one library again and again."""
    return [path for path in _cached(_beginnings(wanted)) if is_called(path, wanted)]


def _beginnings(wanted: str) -> tuple[bytes, ...]:
    """How the names of files begin that may be called so; the C library of musl has other names."""
    stem = os.fsencode(wanted.partition(".so")[0])
    return stem, b"lib" + stem, b"ld-musl-"


def _cached(beginnings: tuple[bytes, ...]) -> list[str]:
    """Paths of the loader's cache for this machine, in the loader's order, of the names that begin so; none where
    there is no such cache."""
    try:
        with open(_CACHE, "rb") as file:
            cache = file.read()
    except OSError:
        return []
    start = cache.find(_CACHE_MAGIC)  # an older table may come first
    if start < 0 or len(cache) < start + _CACHE_HEADER.size:
        return []
    _, count, _ = _CACHE_HEADER.unpack_from(cache, start)
    entries = start + _CACHE_HEADER.size
    count = min(count, (len(cache) - entries) // _CACHE_ENTRY.size)
    here = architecture(os.uname().machine)
    if here is None or not here.cache_flags:
        return []
    paths = []
    for flags, name, value in _CACHE_ENTRY.iter_unpack(cache[entries : entries + count * _CACHE_ENTRY.size]):
        if flags == here.cache_flags and cache.startswith(beginnings, start + name):
            end = cache.find(b"\0", start + value)
            paths.append(os.fsdecode(cache[start + value : end]))
    return paths
