"""A file on an overlay → the files below it, which are what processes run and what the kernel attaches to.

Input: an `OpenFile`. Output: the same where it lies on no overlay. Used by `usdtkit.scan`.

Containers of one image have an overlay each, and each shows the image's file with a number of its own. It is one inode
all the same: attached to by two of its paths, every hit would count twice. And as soon as somebody writes to such a
file, changes its mode or touches it, the overlay leads to a copy, while processes go on with what they have mapped.
"""

from __future__ import annotations

import os
from functools import cache

from usdtkit.errors import UsdtkitError
from usdtkit.files import FileKey, OpenFile

# What overlayfs hands out (fs/overlayfs/overlayfs.h): struct ovl_fh, with the handle of the real file in it.
_OVERLAY_HANDLE, _MAGIC = 0xF8, 0xFB
_PATH_IS_UPPER = 4
_LARGEST_HANDLE = 128
# Of a mount of another kind, which may be a network's, nothing is opened unasked: it may not answer.
_LOCAL = frozenset((b"btrfs", b"erofs", b"ext2", b"ext3", b"ext4", b"f2fs", b"squashfs", b"tmpfs", b"xfs", b"zfs"))


def layers(file: OpenFile) -> list[OpenFile]:
    """The files that processes may run where they have mapped this one: it, or the one below it that it shows; and both
    where it is a copy by now, and processes may have mapped the one below before that.

    Only itself where that one cannot be reached: without CAP_DAC_READ_SEARCH, before Linux 6.6, and where its file
    system is mounted nowhere here.
    """
    below = None if os.major(file.key[0]) else _below(file)
    if below is None:
        return [file]
    if below.stamp == file.stamp:
        return [below]
    # Where only what is said of a file is copied (metacopy), the one below is still what runs.
    return [file] if below.stamp[1:] == file.stamp[1:] and _copies_names_only() else [file, below]


def real_key(path: str, key: FileKey) -> FileKey:
    """Device and inode of what the kernel attaches to by `path`, which shows `key`."""
    if os.major(key[0]):  # a disk's
        return key
    try:
        return layers(OpenFile.open(path))[0].key
    except UsdtkitError:  # gone, or may not be opened
        return key


def forget_mounts() -> None:
    """Look at the mounts again, the next time."""
    _mounts.cache_clear()


def _below(file: OpenFile) -> OpenFile | None:
    """The file that one on an overlay shows, or was copied from; None where there is none, or it is not to be had."""
    from usdtkit._ffi import ffi, lib  # what takes longer to load than most looks at processes without overlays

    kind, handle = ffi.new("int *"), ffi.new("uint8_t[]", _LARGEST_HANDLE)
    size = lib.usdtkit_file_handle(file.descriptor, kind, handle)
    said = bytes(handle)[: max(size, 0)]
    if kind[0] != _OVERLAY_HANDLE or len(said) < 24 or said[4] != _MAGIC or said[6] & _PATH_IS_UPPER:
        return None
    # Three bytes to align it, then: version, magic, size from the version on, flags, type, 16 bytes of UUID, handle.
    real = said[24 : 3 + said[5]]
    found: OpenFile | None = None
    for directory in _mounts()[0]:
        try:
            beside = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            continue
        descriptor = lib.usdtkit_open_by_handle(beside, said[7], real, len(real))
        os.close(beside)
        if descriptor >= 0:
            if found is not None:  # copies of one file system: no telling which it is
                return None
            found = OpenFile(file.path, descriptor)
    return found


def _copies_names_only() -> bool:
    return _mounts()[1]


@cache
def _mounts() -> tuple[tuple[bytes, ...], bool]:
    """A mount of each file system of this machine's own disks; whether some overlay has the option metacopy."""
    systems: dict[bytes, bytes] = {}
    has_metacopy = False
    try:
        with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123 pathlib is dear at the start
            lines = file.read().splitlines()
    except OSError:
        return (), False
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields, (kind, _, options) = before.split(b" "), after.split(b" ", 2)
        has_metacopy |= kind == b"overlay" and b"metacopy=on" in options
        if kind in _LOCAL:
            # the kernel writes blanks within a path as \\040
            systems.setdefault(fields[2], fields[4].decode("unicode_escape").encode("latin-1"))
    return tuple(systems.values()), has_metacopy
