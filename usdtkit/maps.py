"""/proc/PID/maps: the list of what a process has mapped, read and parsed.

Input: the number of a process, or the bytes of such a file. Output: `Mapping`s. `usdtkit.scan` finds the files
that a process runs in it, `usdtkit.mappings` and `usdtkit.trace` the places of single files and addresses.
"""

# ruff: noqa: PTH123 it is read of thousands of processes, where pathlib's cost shows

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from usdtkit.records import NamedTuple

_is_executable = re.compile(rb"\S+ ..x").match


class Identity(NamedTuple):
    """A file as the kernel's lists of mappings show it. On overlayfs and btrfs, stat(2) shows another device."""

    major: int
    minor: int
    inode: int

    @property
    def device(self) -> int:
        """The device in the form of st_dev."""
        return os.makedev(self.major, self.minor)

    @property
    def text(self) -> bytes:
        """How the file stands in a line of maps, between the offset and the name."""
        return b" %02x:%02x %d " % self


class Mapping(NamedTuple):
    """One line of maps: addresses `start` to `end`, permissions such as b"r-xp", and the offset of `start` in the file.

    `name` is the path of the file as the process sees it, or what the kernel calls a mapping without a file ("[vdso]",
    "[heap]", ""), whose inode is 0. Bytes that are not UTF-8 are kept as surrogate escapes.
    """

    start: int
    end: int
    permissions: bytes
    offset: int
    identity: Identity
    name: str

    @property
    def span(self) -> str:
        """The name of the mapping's link in /proc/PID/map_files."""
        return f"{self.start:x}-{self.end:x}"

    def address(self, offset: int) -> int | None:
        """Where the byte at this offset of the file is in memory; None if this mapping does not have it."""
        return self.start + offset - self.offset if 0 <= offset - self.offset < self.end - self.start else None

    @property
    def is_executable(self) -> bool:
        """Whether code can run in it."""
        return self.permissions[2:3] == b"x"

    @property
    def is_writable(self) -> bool:
        """Whether the process can write to it."""
        return self.permissions[1:2] == b"w"


def maps_of(pid: int | str) -> bytes:
    """Read /proc/PID/maps, which is empty for a kernel thread and for a zombie. `pid` may be "self".

    OSError if the process has ended or may not be inspected.
    """
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        return file.read()


def all_mappings(maps: bytes) -> Iterator[Mapping]:
    """Parse all lines of maps, in the order of their addresses."""
    return map(parse, filter(None, maps.split(b"\n")))


def executable_lines(maps: bytes) -> list[bytes]:
    """Return the lines of maps in which code can run; `parse` parses one."""
    return [line for line in maps.split(b"\n") if _is_executable(line)]


def executable_mappings(maps: bytes) -> Iterator[Mapping]:
    """Parse the lines of maps in which code can run."""
    return map(parse, executable_lines(maps))


def mappings_in(maps: bytes, identity: Identity) -> list[Mapping]:
    """Parse the lines of maps that map this file. A process has hundreds of lines, so only these are parsed."""
    found, text = [], identity.text
    at = maps.find(text)
    while at >= 0:
        end = maps.find(b"\n", at)
        end = end if end >= 0 else len(maps)
        mapping = parse(maps[maps.rfind(b"\n", 0, at) + 1 : end])
        if mapping.identity == identity:  # else the text is a part of some name
            found.append(mapping)
        at = maps.find(text, end)
    return found


def mapping_at(maps: bytes, address: int) -> Mapping | None:
    """Return the mapping that contains an address, None if there is none."""
    return next((mapping for mapping in all_mappings(maps) if mapping.start <= address < mapping.end), None)


def parse(line: bytes) -> Mapping:
    """Parse one line of maps."""
    span, permissions, offset, device, inode, *name = line.split(None, 5)
    start, end = span.split(b"-")
    major, minor = device.split(b":")
    identity = Identity(int(major, 16), int(minor, 16), int(inode))
    # The kernel writes a newline within a name as \012, and changes nothing else.
    text = os.fsdecode(name[0].replace(b"\\012", b"\n")) if name else ""
    return Mapping(int(start, 16), int(end, 16), permissions, int(offset, 16), identity, text)
