"""Where the parts of a Go program lie that its table of functions refers to: an open ELF file → addresses.

Input `usdtkit.elf.image.Image`; used by `usdtkit.elf.pclntab`. The runtime describes the program in a structure, its
moduledata, that begins with the address of the table. Since Go 1.26 only that says where the code of the first function
is, from which the table measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from usdtkit.elf.constants import PF_W, PF_X, PT_LOAD
from usdtkit.elf.image import Image, places
from usdtkit.elf.relocations import Relocations
from usdtkit.errors import ElfError

_MOST_DATA = 1 << 27  # bytes that are searched
_MOST_TRIES = 4  # places with the address of the table
# Words of moduledata before that with the lowest address of code, and before that with the start of the program's text.
_WORDS_BEFORE_LOWEST, _WORDS_BEFORE_TEXT = 20, 22


def data_segments(image: Image, flag: int = 0) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of segments that are not code, and have the flag; as many as can be read in a moment.

    Those that would reach beyond all memory, as in a damaged file, are left out.
    """
    left = _MOST_DATA
    for segment in image.segments:
        if segment.address + segment.file_size > 1 << image.bits:
            continue
        if segment.type == PT_LOAD and not segment.flags & PF_X and segment.flags & flag == flag:
            left -= segment.file_size
            if left >= 0:
                with suppress(ElfError):
                    yield segment.address, image.read(segment.offset, segment.file_size)


def relocated(image: Image, data: bytes, address: int) -> bytes:
    """The table with the addresses that the loader writes into it."""
    changed = bytearray(data)
    for place, value in Relocations(image).within(address, len(data)):
        changed[place - address : place - address + 8] = value.to_bytes(8, "little")
    return bytes(changed)


def text_start(image: Image, address: int, stated: int) -> int:
    """Where the first function starts, from which distances are measured: as the table states it, where it does (until
    Go 1.25, unless the program can be loaded anywhere), else as the description of the module that begins with the
    table's address. Else it is the start of the code, which C functions can come before."""
    if stated:
        return stated
    relocations, word = Relocations(image), image.bits // 8
    wanted = address.to_bytes(word, image.order)
    modules = [*islice(relocations.pointing_to(address), _MOST_TRIES)]
    for start, data in data_segments(image, PF_W):
        modules += [start + at for at in islice(places(data, wanted), _MOST_TRIES)]
    for module in modules:
        lowest = relocations.pointer(module + word * _WORDS_BEFORE_LOWEST)
        text = relocations.pointer(module + word * _WORDS_BEFORE_TEXT)
        if text and text <= lowest and _is_code(image, text):
            return text
    return next((section.address for section in image.sections if section.name == ".text"), 0)


def _is_code(image: Image, address: int) -> bool:
    try:
        return image.file_offset(address) >= 0
    except ElfError:
        return False
