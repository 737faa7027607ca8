"""A file that is opened once: the bytes that are looked at and the inode that the kernel attaches to are the same.

Input: a path. Output: `OpenFile`, which `usdtkit.elf.image` reads, the nouns of `usdtkit.model` carry along, and
`usdtkit.kernel.attach` attaches to. A path can lead to another file the next time, and whoever may write in a directory
can see to that; a descriptor cannot. So a path is for messages as soon as the file is open.
"""

from __future__ import annotations

import errno
import os
import stat

from usdtkit.errors import ElfError, NotFoundError, PrivilegeError

FileKey = tuple[int, int]
"""Device and inode: what makes two paths one file."""

# Non-blocking, for the path may name a pipe; and it must not become our terminal.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class OpenFile:
    """A regular file that is open for reading, and is closed when nothing refers to this object any more.

    `path` is how it was reached, for messages. `owner` is the number of its user, `size` its bytes when it was opened.
    Two of them are equal when they are the same inode.
    """

    __slots__ = ("__weakref__", "_changed_ns", "_written_ns", "descriptor", "key", "owner", "path", "size")

    def __init__(self, path: str, descriptor: int) -> None:
        """Take over `descriptor`, also when that fails: ElfError where it is of no regular file."""
        self.descriptor = descriptor
        self.path = path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise ElfError(f"{path}: not a regular file")
        self.key: FileKey = (status.st_dev, status.st_ino)
        self.owner = status.st_uid
        self.size = status.st_size
        self._written_ns, self._changed_ns = status.st_mtime_ns, status.st_ctime_ns

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> OpenFile:
        """Open the file at `path`; NotFoundError, PrivilegeError or ElfError where that cannot be."""
        path = os.fspath(path)
        try:
            return cls(path, os.open(path, _FLAGS))
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            raise NotFoundError(f"{path!r}: no such file") from None
        except PermissionError:
            raise PrivilegeError(
                f"{path}: permission denied", hint="run as root, or as the owner of the file"
            ) from None
        except (OSError, ValueError) as error:
            raise ElfError(f"{path!r}: cannot open: {getattr(error, 'strerror', None) or error}") from None

    @property
    def attach_path(self) -> str:
        """A path that leads the kernel to this very inode, whatever has become of `path`, as long as it is open."""
        return f"/proc/self/fd/{self.descriptor}"

    def reopen(self, path: str) -> None:
        """Hold it by another way that leads to it: the descriptor keeps its number. OSError where `path` does not."""
        again = os.open(path, _FLAGS)
        try:
            status = os.fstat(again)
            if (status.st_dev, status.st_ino) != self.key:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
            os.dup2(again, self.descriptor, inheritable=False)
        finally:
            os.close(again)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """When it was last changed and written to, in ns of st_ctime and st_mtime, and its size, when it was opened."""
        return self._changed_ns, self._written_ns, self.size

    @property
    def version(self) -> tuple[int, int, int]:
        """Device, inode, and when it was last changed before it was opened, in ns of st_ctime."""
        return (*self.key, self._changed_ns)

    @property
    def is_rewritten(self) -> bool:
        """Whether somebody has written to it since it was opened.

        A new name, owner or mode changes st_ctime, and not what stands in the file, which st_mtime or the size tells.
        """
        status = os.fstat(self.descriptor)
        if status.st_ctime_ns == self._changed_ns:
            return False
        return (status.st_mtime_ns, status.st_size) != (self._written_ns, self.size)

    def close(self) -> None:
        """Close it now, for all who hold it; again is harmless."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, OpenFile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"OpenFile({self.path!r}, {self.descriptor})"
