"""Files that are opened once, so that the kernel attaches to the same inode whose bytes were read.

Input: a path. Output: `OpenFile`, which `usdtkit.elf.image` reads, the nouns of `usdtkit.model` carry, and
`usdtkit.kernel` attaches to. The next time, a path can lead to another file, because whoever may write to a directory
can replace its entries. A descriptor cannot. So as soon as a file is open, its path is only used in messages.
"""

from __future__ import annotations

import errno
import os
import stat

from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, as_root

FileKey = tuple[int, int]
"""Device and inode, which are equal if two paths lead to one file."""

# Opening must not block if the path names a pipe, nor make it our controlling terminal.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class OpenFile:
    """A regular file that is open for reading. It is closed when nothing refers to this object any more.

    `path` is the path by which it was opened, for messages; `owner` is its user's number, `size` its size in bytes when
    it was opened. Two objects are equal when they are of the same inode.
    """

    __slots__ = ("__weakref__", "_changed_ns", "_written_ns", "descriptor", "key", "owner", "path", "size")

    def __init__(self, path: str, descriptor: int) -> None:
        """Take over `descriptor`. If it is not of a regular file, it is closed, and ElfError is raised."""
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
        """Open the file at `path`. NotFoundError, PrivilegeError or ElfError if it cannot be opened."""
        path = os.fspath(path)
        try:
            return cls(path, os.open(path, _FLAGS))
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            raise NotFoundError(f"{path!r}: no such file") from None
        except PermissionError:
            raise PrivilegeError(f"{path}: permission denied", hint=as_root("as the owner of the file")) from None
        except (OSError, ValueError) as error:
            raise ElfError(f"{path!r}: cannot open: {getattr(error, 'strerror', None) or error}") from None

    @property
    def attach_path(self) -> str:
        """A path by which the kernel finds this inode as long as it is open, whatever `path` leads to by then."""
        return f"/proc/self/fd/{self.descriptor}"

    def reopen(self, path: str) -> None:
        """Open the file again by another path that leads to it, under the same number of the descriptor.

        OSError if `path` does not lead to it.
        """
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != self.key:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
            os.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            os.close(descriptor)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """st_ctime and st_mtime in nanoseconds, and the size in bytes, as of when it was opened."""
        return self._changed_ns, self._written_ns, self.size

    @property
    def version(self) -> tuple[int, int, int]:
        """Device, inode, and st_ctime in nanoseconds as of when it was opened."""
        return (*self.key, self._changed_ns)

    @property
    def is_rewritten(self) -> bool:
        """Whether its content may have been changed since it was opened.

        A new name, owner or mode changes only st_ctime. A new content changes st_mtime or the size as well.
        """
        status = os.fstat(self.descriptor)
        if status.st_ctime_ns == self._changed_ns:
            return False
        return (status.st_mtime_ns, status.st_size) != (self._written_ns, self.size)

    def close(self) -> None:
        """Close it now, for everything that refers to this object. Closing it again is harmless."""
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
