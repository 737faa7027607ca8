"""A traced file → the same file in a mount of its own, so that its mount can be unmounted while it is traced.

Used by `attach.links` for every file that it attaches to. While a probe is attached to a file, the kernel keeps the
path by which it was given the file, and with the path the mount: umount(8) would report that the target is busy until
the trace ends.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache

from usdtkit._ffi import lib
from usdtkit.files import OpenFile


def leave_mount(file: OpenFile) -> None:
    """Make `file`, and the kernel when it attaches to it, refer to the file by a mount that nothing else is in.

    The file stays in its own mount where we lack CAP_SYS_ADMIN, where the kernel lacks open_tree (Linux 5.2), and where
    that mount is in another namespace, with which it ends. It also stays in the mount of the root directory, which
    nobody unmounts, so that the kernel goes on showing a readable path of the probe.
    """
    if _mount_of(file.descriptor) == _root_mount():
        return
    clone = lib.usdtkit_clone_mount(file.descriptor)
    if clone >= 0:
        try:
            with contextlib.suppress(OSError):  # then it stays where it is
                file.reopen(f"/proc/self/fd/{clone}")
        finally:
            os.close(clone)


def _mount_of(descriptor: int) -> bytes:
    """The number of the mount by which a file was opened, or b"" where /proc does not say."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as info:  # noqa: PTH123 importing pathlib takes long
            return info.read().partition(b"mnt_id:")[2].partition(b"\n")[0]
    except OSError:
        return b""


@cache
def _root_mount() -> bytes:
    descriptor = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return _mount_of(descriptor)
    finally:
        os.close(descriptor)
