"""The memory of a process, read from outside in a bounded number of pieces.

Used by `usdtkit.unwind.pythons`, `rubies` and `phps`. The memory belongs to a program that runs meanwhile and may hold
anything, so each read may fail, and what is read must be checked.
"""

from __future__ import annotations

import os
import struct
from types import TracebackType

from usdtkit.errors import NotFoundError, PrivilegeError, as_root

_MOST_READS = 200_000
_POINTER = struct.Struct("<Q")


class Unreadable(Exception):
    """The memory at an address cannot be what it should be."""


class Memory:
    """Of one process, for one look at it. NotFoundError if it has ended, PrivilegeError."""

    def __init__(self, pid: int) -> None:
        self._reads = 0
        try:
            self._descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            raise PrivilegeError(f"the memory of process {pid} may not be read", hint=as_root()) from None
        except OSError:
            raise NotFoundError(f"process {pid} has ended") from None

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def read(self, address: int, size: int) -> bytes:
        """All of the bytes. Unreadable."""
        self._reads += 1
        if self._reads > _MOST_READS:
            raise Unreadable(f"more than {_MOST_READS} pieces would have to be read")
        try:
            data = os.pread(self._descriptor, size, address) if 0 < address < 1 << 56 else b""
        except OSError:
            data = b""
        if len(data) < size:
            raise Unreadable(f"{size} bytes at {address:#x} cannot be read")
        return data

    def pointer(self, address: int) -> int:
        """Unreadable."""
        value: int = _POINTER.unpack(self.read(address, 8))[0]
        return value

    def number(self, address: int) -> int:
        """A u32. Unreadable."""
        return int.from_bytes(self.read(address, 4), "little")
