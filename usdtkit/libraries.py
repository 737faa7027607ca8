"""Names of shared libraries: a short name or file name in, paths by the loader's cache and directories out.

Used by `usdtkit.resolve` to find a library and by `usdtkit.signatures` to recognise one.
"""

# ruff: noqa: PTH112, PTH113, PTH116, PTH123, PTH208

from __future__ import annotations

import os
import re
import struct
from functools import cache, lru_cache

from usdtkit.architectures import architecture

# A version as in libc-2.31.so, or the hash of a library in a Python wheel, as in libssl-3e69114b.so.1.1.
_VERSION = r"-[0-9][0-9.]*|-(?=[a-f]*[0-9])[0-9a-f]{6,}|-[0-9a-f]{8}"

MERGED = frozenset(("pthread", "dl", "rt", "util", "anl"))
"""Libraries that have been a part of the C library since glibc 2.34, and always of musl's."""

_CACHE = "/etc/ld.so.cache"
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER, _CACHE_ENTRY = struct.Struct("<20sII20x"), struct.Struct("<iII12x")
_MUSL_LOADER = (
    f"/lib/ld-musl-{os.uname().machine}.so.1"  # the loader of musl is its C library, and may be installed beside glibc
)
_DIRECTORIES = (
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
)  # searched where there is no cache, as with musl


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What file names of libraries, and those of musl's C library, look like; compiled when first used: 0.3 ms."""
    library = re.compile(rf"lib(?P<name>[^/]+?)(?P<version>{_VERSION})?\.so(?:\.[0-9A-Za-z.]*)?")
    return library, re.compile(r"(?:libc\.musl-|ld-musl-)[^/]*\.so(?:\.[0-9.]*)?")


def library_name(path: str) -> str:
    """Return what -l of a linker takes: "c" for libc.so.6, /lib/libc-2.31.so and musl's; a program's file name."""
    name = path.rpartition("/")[2]
    library, musl = _patterns()
    if musl.fullmatch(name):
        return "c"
    found = library.fullmatch(name)
    return found["name"] if found else name


@lru_cache(maxsize=4096)  # a tool asks about all files that run, for one group of functions after the other
def is_called(path: str, library: str) -> bool:
    """Return whether the file at `path` is the library or program `library`, a file name, a soname or a short name.

    libpam.so.0 is also the name of libpam.so.0.85.1, and libc.so.6 that of libc-2.31.so.
    """
    name = path.rpartition("/")[2]
    if name == library or name.startswith(f"lib{library}.so") or library_name(name) == library:
        return True
    pattern, _ = _patterns()
    soname = pattern.fullmatch(library)
    if soname is None:
        return False
    file = pattern.fullmatch(name)
    return name.startswith(f"{library}.") or bool(file and file["version"] and file["name"] == soname["name"])


def installed(library: str) -> list[str]:
    """Return the paths of the libraries of that name that programs here can load, in the loader's order."""
    try:
        paths = _cached_as(library, os.stat(_CACHE).st_mtime_ns)
    except OSError:
        paths = []
    if not paths:
        for directory in _DIRECTORIES:
            if os.path.isdir(directory):
                paths = paths + sorted(
                    f"{directory}/{name}" for name in os.listdir(directory) if is_called(name, library)
                )
    if is_called(_MUSL_LOADER, library):
        paths = [*paths, _MUSL_LOADER]
    return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]


def beginning_with(text: str) -> set[str]:
    """Return the short names, beginning so, of the libraries in the loader's cache."""
    names = map(library_name, _cached((b"lib" + os.fsencode(text),)))
    return {name for name in names if name.startswith(text)}


@lru_cache(maxsize=64)
def _cached_as(name: str, changed: int) -> list[str]:
    """The paths of that name in the loader's cache as of its change. A tool asks for one library again and again."""
    return [path for path in _cached(_beginnings(name)) if is_called(path, name)]


def _beginnings(name: str) -> tuple[bytes, ...]:
    """How the names of files that may be called so begin; the C library of musl has names of its own."""
    stem = os.fsencode(name.partition(".so")[0])
    return stem, b"lib" + stem, b"ld-musl-"


def _cached(beginnings: tuple[bytes, ...]) -> list[str]:
    """The paths in the loader's cache whose names begin so and that are for this machine, in the loader's order; none
    where there is no cache."""
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
