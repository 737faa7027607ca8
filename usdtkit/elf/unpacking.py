"""An open ELF file → the bytes of a section with debug information, which may be packed.

Input `usdtkit.elf.image.Image`; used by `usdtkit.elf.godwarf` and `usdtkit.unwind`. A section is packed by zlib in one
of two ways, of which the older one shows in its name (.zdebug_info). zstd is not unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from usdtkit.elf.constants import SHF_COMPRESSED
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError

_ZLIB = 1
_PIECE = 1 << 22  # bytes that are unpacked at once


def unpacked(image: Image, name: str, most: int) -> Iterator[bytes]:
    """Yield the bytes of the section of that name, such as .debug_info, in pieces of at most 4 MB; nothing if there is
    none. It ends with the piece that reaches `most` bytes. ElfError of a damaged section, or of one that is packed in
    another way.
    """
    section = image.section(name) or image.section(name.replace(".", ".z", 1))
    if section is None:
        return
    start, end = section.offset, section.offset + section.size
    packed = True
    if section.name != name:
        start += 12  # ZLIB, and the size
    elif section.flags & SHF_COMPRESSED:
        kind = int.from_bytes(image.read(start, 4), image.order)
        if kind != _ZLIB:
            raise ElfError(f"{image.path}: {name} is packed by method {kind}, which is not supported")
        start += 24 if image.bits == 64 else 12
    else:
        packed = False
    unpacker, left = zlib.decompressobj(), most
    for at in range(start, end, _PIECE):
        data = image.read(at, min(_PIECE, end - at))
        while data and left > 0:
            try:
                piece = unpacker.decompress(data, _PIECE) if packed else data
            except zlib.error as error:
                raise ElfError(f"{image.path}: damaged {name}: {error}") from None
            data = unpacker.unconsumed_tail if packed else b""
            left -= len(piece)
            yield piece
