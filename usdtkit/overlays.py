"""A file on an overlay → the files below it, which are what processes run and what the kernel attaches to.

Input: an `OpenFile`. Output: the same file where it does not lie on an overlay. Used by `usdtkit.scan`.

Containers of one image each have an overlay, and each overlay shows the image's file with another inode number. It is
one inode nevertheless. If probes were attached to it by two of its paths, every hit would count twice. As soon as
somebody writes to such a file, changes its mode or touches it, the overlay shows a copy, while processes still run the
file that they have mapped.
"""

from __future__ import annotations

import os
from functools import cache

from usdtkit.errors import UsdtkitError
from usdtkit.files import FileKey, OpenFile

# The file handle that overlayfs gives (struct ovl_fh in fs/overlayfs/overlayfs.h) contains that of the real file.
_OVERLAY_HANDLE, _MAGIC = 0xF8, 0xFB
_PATH_IS_UPPER = 4
_LARGEST_HANDLE = 128
# Nothing is opened on other file systems without being asked for. They may be a network's, and not answer.
_LOCAL = frozenset((b"btrfs", b"erofs", b"ext2", b"ext3", b"ext4", b"f2fs", b"squashfs", b"tmpfs", b"xfs", b"zfs"))


def layers(file: OpenFile) -> list[OpenFile]:
    """Return the files that processes may run where they have mapped this one.

    These are the file below it that an overlay shows, or both where the overlay shows a copy by now, because processes
    may have mapped the original before. It is the file itself where the one below cannot be reached: without
    CAP_DAC_READ_SEARCH, before Linux 6.6, and where its file system is not mounted in our mount namespace.
    """
    below = None if os.major(file.key[0]) else _below(file)
    if below is None:
        return [file]
    if below.stamp == file.stamp:
        return [below]
    # With metacopy, the overlay may have copied only the metadata of the file. Then processes still run the one below.
    return [file] if below.stamp[1:] == file.stamp[1:] and _copies_names_only() else [file, below]


def real_key(path: str, key: FileKey) -> FileKey:
    """Return device and inode of the file that the kernel attaches to by `path`, for which stat shows `key`."""
    if os.major(key[0]):  # it is on a disk, and no overlay
        return key
    try:
        return layers(OpenFile.open(path))[0].key
    except UsdtkitError:  # it is gone, or may not be opened
        return key


def forget_mounts() -> None:
    """Read the list of mounts again the next time."""
    _mounts.cache_clear()


def _below(file: OpenFile) -> OpenFile | None:
    """The file that one on an overlay shows or was copied from; None where there is none, or it cannot be reached."""
    from usdtkit._ffi import ffi, lib  # lazy: loading it takes longer than scanning processes without overlays

    kind, handle = ffi.new("int *"), ffi.new("uint8_t[]", _LARGEST_HANDLE)
    size = lib.usdtkit_file_handle(file.descriptor, kind, handle)
    overlay_handle = bytes(handle)[: max(size, 0)]
    if kind[0] != _OVERLAY_HANDLE or len(overlay_handle) < 24 or overlay_handle[4] != _MAGIC:
        return None
    if overlay_handle[6] & _PATH_IS_UPPER:
        return None
    # Three bytes to align it, then: version, magic, size from the version on, flags, type, 16 bytes of UUID, handle.
    real_handle = overlay_handle[24 : 3 + overlay_handle[5]]
    below: OpenFile | None = None
    for directory in _mounts()[0]:
        try:
            mount = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            continue
        descriptor = lib.usdtkit_open_by_handle(mount, overlay_handle[7], real_handle, len(real_handle))
        os.close(mount)
        if descriptor >= 0:
            if below is not None:  # one file system is a copy of the other, and either could be meant
                return None
            below = OpenFile(file.path, descriptor)
    return below


def _copies_names_only() -> bool:
    return _mounts()[1]


@cache
def _mounts() -> tuple[tuple[bytes, ...], bool]:
    """A mount point of each local file system; and whether an overlay has the option metacopy."""
    systems: dict[bytes, bytes] = {}
    has_metacopy = False
    try:
        with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123 importing pathlib takes time
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
