"""Where a member of a structure of Go's runtime lies: an open ELF file with DWARF → an offset.

Input `usdtkit.elf.image.Image`; used by `usdtkit.elf.golang` for versions of Go that it does not know. Reading DWARF
from its beginning would take seconds. Go's linkers write names where they are used, so that a structure is found by its
name, and its members by theirs, which follow it: each has a number of its kind before the name, and its offset as a
varint behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from usdtkit.elf.image import Image, places
from usdtkit.elf.unpacking import unpacked
from usdtkit.errors import ElfError

_HEAD = 64  # bytes between the name of a structure and that of its first member, at most
_MOST = 1 << 29  # bytes that are searched
_MOST_TRIES = 256  # places that have the name of the structure
_DESCRIPTION = 1 << 14  # a structure's, with room to spare
_LONGEST_OFFSET = 3  # bytes of the varint


def member_offset(image: Image, structure: bytes, first: bytes, member: bytes) -> int:
    """Bytes from the start of a structure, whose `first` member is known, to a member; 0 if that cannot be found."""
    before, tries = b"", 0
    for piece in _pieces(image):
        data = before + piece
        for at in places(data, structure + b"\0"):
            if at > len(data) - _DESCRIPTION or tries == _MOST_TRIES:
                break
            tries += 1
            if offset := _offset(data[at : at + _DESCRIPTION], first, member):
                return offset
        before = data[-_DESCRIPTION:]
    return 0


def _offset(description: bytes, first: bytes, member: bytes) -> int:
    """The offset of a member in what begins with the name of the structure; 0 if that is not its description."""
    head = description.find(first + b"\0")
    end = len(description) - _LONGEST_OFFSET
    at = description.find(member + b"\0", head, end) if 0 < head <= _HEAD else -1
    if at < 0 or description[at - 1 : at].isalnum():  # the end of another name
        return 0
    offset, at = 0, at + len(member) + 1
    for shift in range(0, 7 * _LONGEST_OFFSET, 7):
        offset |= (description[at] & 0x7F) << shift
        if not description[at] & 0x80:
            return 0 if offset % 4 else offset
        at += 1
    return 0


def _pieces(image: Image) -> Iterator[bytes]:
    """The bytes of .debug_info, and as many zeros as a description is long. Damage ends it."""
    with suppress(ElfError):
        yield from unpacked(image, ".debug_info", _MOST)
    yield bytes(_DESCRIPTION)
