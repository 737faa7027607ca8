"""What the loader writes into the memory of a file: an open ELF file → its relocations with addends, by address.

Input `usdtkit.elf.image.Image`; used by `usdtkit.elf.callees` for pointers to functions, and by `usdtkit.elf.pclntab`,
whose table has such pointers where a program can be loaded anywhere. Relocations are searched for by their bytes,
because going through hundreds of thousands of them in Python takes longer than a tool's start. Files of 64 bits in
little-endian order are supported; others count as having none, and so do damaged sections.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice

from usdtkit.elf.constants import SHT_RELA
from usdtkit.elf.image import Image, places
from usdtkit.errors import ElfError

_ENTRY = 24
_MOST_BYTES = 1 << 27  # of all sections
_MOST_PLACES = 1 << 16  # where the bytes of a number are found, mostly not as that number
# The type of a relocation whose addend is an address in the file, by machine.
_RELATIVE = {"x86_64": 8, "aarch64": 1027}


class Relocations:
    """The relocations of one file. They are read at the first question."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.relative_type = _RELATIVE.get(image.machine, -1)

    @cached_property
    def _sections(self) -> list[bytes]:
        if not self._image.little_endian or self._image.bits != 64:
            return []
        found, left = [], _MOST_BYTES
        for section in self._image.sections:
            if section.type == SHT_RELA and section.size <= left:
                with suppress(ElfError):
                    found.append(self._image.data(section))
                    left -= section.size
        return found

    def of(self, address: int) -> tuple[int, int, int] | None:
        """(type, index of the symbol, addend) of the relocation of the eight bytes at an address."""
        for data, at in self._with(address, 0):
            info, addend = struct.unpack_from("<QQ", data, at + 8)
            return info & 0xFFFFFFFF, info >> 32, addend
        return None

    def pointing_to(self, value: int) -> Iterator[int]:
        """The addresses into which the loader writes the address `value` of the file."""
        for data, at in self._with(value, 16):
            place, info = struct.unpack_from("<QQ", data, at)
            if info & 0xFFFFFFFF == self.relative_type:
                yield place

    def within(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """(address, value) of each address of the file that the loader writes between `start` and `start + size`."""
        for data in self._sections:
            words = array("Q", data[: len(data) // _ENTRY * _ENTRY])
            places, kinds, addends = words[0::3], words[1::3], words[2::3]
            for index in [index for index, place in enumerate(places) if start <= place <= start + size - 8]:
                if kinds[index] & 0xFFFFFFFF == self.relative_type:
                    yield places[index], addends[index]

    def pointer(self, address: int) -> int:
        """Return the address that the file, or the loader, puts at this address of data; 0 for none."""
        found = self.of(address)
        if found is not None:
            return found[2] if found[0] == self.relative_type else 0
        size = self._image.bits // 8
        try:
            data = self._image.loaded(address, size)
        except ElfError:
            return 0
        return int.from_bytes(data, self._image.order)

    def _with(self, number: int, field: int) -> Iterator[tuple[bytes, int]]:
        """The sections, and the offsets in them, of the entries that have this number at an offset in the entry."""
        if number >= 1 << 64:  # such as the end of a structure that a damaged file has at the end of all memory
            return
        wanted = struct.pack("<Q", number)
        for data in self._sections:
            for at in islice(places(data, wanted), _MOST_PLACES):
                if at % _ENTRY == field and at - field <= len(data) - _ENTRY:
                    yield data, at - field
