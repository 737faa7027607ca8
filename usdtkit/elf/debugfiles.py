"""A stripped ELF file → the files that have its symbols: its own .gnu_debugdata, or what its build-id or link names.

Input `usdtkit.elf.image.Image`, output more of them; used by `usdtkit.elf.tables` and `usdtkit.trace.symbols`. A debug
file must fit: its build-id is compared, or its checksum with the one in the link. Both can be forged, and symbols
decide where probes are put. So the debug file must also belong to root, to us, or to the owner of the stripped file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from usdtkit.elf.image import Image, Section
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile

_DIRECTORY = "/usr/lib/debug"
_LARGEST_DEBUGDATA = 48 << 20  # unpacked: ten times that of libc
_LARGEST_LINKED = 1 << 30
_BLOCK = 1 << 20
_ABOVE = re.compile(r"/proc/[0-9]+/root(?=/)")


def debug_images(image: Image) -> Iterator[Image]:
    """Yield open files with the symbols that this one was stripped of. The caller closes each of them.

    They are looked for by build-id, then by .gnu_debuglink, both also below a container's root; then in the file
    itself, where Fedora keeps the functions that are not exported. A file that is damaged or cannot be read counts as
    absent.
    """
    debug = _by_build_id(image) or _by_link(image)
    if debug is not None:
        yield debug
    elif (section := image.section(".gnu_debugdata")) and (unpacked := _unpacked(image, section)) is not None:
        yield unpacked


def _by_build_id(image: Image) -> Image | None:
    number = image.build_id
    if not 4 <= len(number) <= 128:
        return None
    for root in _roots(image):
        candidate = _open(f"{root}{_DIRECTORY}/.build-id/{number[:2]}/{number[2:]}.debug", image)
        if candidate is not None:
            if candidate.build_id == number:
                return candidate
            candidate.close()
    return None


def _by_link(image: Image) -> Image | None:
    """The file that .gnu_debuglink names: a NUL-terminated name, padding to 4 bytes, and the CRC-32 of the file."""
    section = image.section(".gnu_debuglink")
    if section is None or not 8 <= section.size <= 4096:
        return None
    data = image.data(section)
    name = os.fsdecode(data.partition(b"\0")[0])
    if "/" in name or name in ("", ".", ".."):
        return None
    expected = int.from_bytes(data[-4:], image.order)
    above = _ABOVE.match(image.path)
    root = above[0] if above else ""
    directory = os.path.dirname(os.path.abspath(image.path))  # noqa: PTH100, PTH120
    inside = directory.removeprefix(root)
    for folder in (directory, f"{directory}/.debug", f"{root}{_DIRECTORY}{inside}"):
        candidate = _open(f"{folder}/{name}", image)
        if candidate is not None:
            if candidate.size <= _LARGEST_LINKED and _checksum(candidate) == expected:
                return candidate
            candidate.close()
    return None


def _roots(image: Image) -> list[str]:
    above = _ABOVE.match(image.path)
    return [above[0], ""] if above else [""]


def _open(path: str, stripped: Image) -> Image | None:
    try:
        file = OpenFile.open(path)
        return Image(path, file) if file.owner in (0, stripped.file.owner, os.geteuid()) else None
    except UsdtkitError:
        return None


def _checksum(image: Image) -> int:
    import zlib

    checksum = 0
    for offset in range(0, image.size, _BLOCK):
        checksum = zlib.crc32(image.read(offset, min(_BLOCK, image.size - offset)), checksum)
    return checksum


def _unpacked(image: Image, section: Section) -> Image | None:
    import lzma

    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LARGEST_DEBUGDATA)
    try:
        data = unpacker.decompress(image.data(section), _LARGEST_DEBUGDATA)
    except lzma.LZMAError:
        return None
    if not unpacker.eof:
        return None
    descriptor = os.memfd_create("gnu_debugdata", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    try:
        return Image(f"{image.path} (.gnu_debugdata)", descriptor)
    except UsdtkitError:
        return None
