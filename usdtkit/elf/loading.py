"""How a file will lie in memory: which of its pages are mapped more than once, and where code of it runs first.

Input: an `Image`, offsets in the file. Output: facts for `usdtkit.trace`, from the program headers alone. All of it is
pure; what a process really has mapped is in `usdtkit.mappings`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from usdtkit.elf.constants import DT_INIT, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD
from usdtkit.elf.image import Image, Segment

_ENTRY_OFFSET = 24  # of e_entry, in the headers of both widths
_LARGEST_DYNAMIC = 1 << 16


def misleads_kernel(image: Image, semaphore_offset: int, sites: Iterable[int], page: int) -> bool:
    """Whether the kernel can raise this semaphore in the wrong place, or not as often as it will lower it.

    It raises the counter in the first writable mapping of its page of the file. Linkers that save space (lld, mold) put
    what becomes read-only after relocation on the same page as variables; that page is mapped twice, and the first of
    the two is the wrong one while a program starts. And it raises the counter once for each mapping of a site's page
    that is not writable, but only once before there is anything to raise.
    """
    loads = [segment for segment in image.segments if segment.type == PT_LOAD]
    relro = [segment for segment in image.segments if segment.type == PT_GNU_RELRO]
    writable = [load for load in loads if load.flags & PF_W]
    constant = [
        load
        for load in loads
        if not load.flags & PF_W or any(load.address <= one.address < load.address + load.file_size for one in relro)
    ]
    return _on_page(writable, semaphore_offset, page) > 1 or any(_on_page(constant, at, page) > 1 for at in sites)


def _on_page(segments: Iterable[Segment], offset: int, page: int) -> int:
    """How many of the segments map the page of this file offset."""
    start = offset & -page
    return sum(one.offset & -page <= start < one.offset + one.file_size for one in segments if one.file_size)


def address_of(image: Image, offset: int, *, writable: bool = False) -> int | None:
    """The virtual address of what stands at this offset, or None; `writable`: in a segment that is."""
    for one in image.segments:
        if one.type == PT_LOAD and 0 <= offset - one.offset < one.file_size and (one.flags & PF_W or not writable):
            return one.address + offset - one.offset
    return None


def places_of_code(image: Image, page: int) -> list[tuple[int, int]]:
    """Where the pages of each executable segment begin: file offset, and virtual address."""
    return [
        (one.offset & -page, one.address & -page) for one in image.segments if one.type == PT_LOAD and one.flags & PF_X
    ]


def span(image: Image, page: int) -> tuple[int, int]:
    """The virtual addresses that the segments take: the first, and the one behind the last."""
    loads = [one for one in image.segments if one.type == PT_LOAD]
    first = min((one.address & -page for one in loads), default=0)
    return first, max((one.address + one.file_size for one in loads), default=0)


def load_bias(image: Image, mappings: Iterable[tuple[int, int]], page: int) -> int:
    """How far above their addresses in the file a process has the segments, by its mappings: (address, file offset).

    A page that two segments share can be either's mapping, so what most of them say is taken.
    """
    loads = [one for one in image.segments if one.type == PT_LOAD]
    votes: dict[int, int] = {0: 0}
    for start, offset in mappings:
        for one in loads:
            if one.offset & -page <= offset < one.offset + one.file_size:
                bias = start - (one.address - one.offset + offset)
                votes[bias] = votes.get(bias, 0) + 1
    return max(votes, key=lambda bias: votes[bias])


def first_instructions(image: Image) -> list[int]:
    """File offsets of where the file's own code begins to run: a program's entry, a library's DT_INIT; perhaps none.

    By then the loader has mapped and relocated all of it, and nothing else of it has run.
    """
    width = image.bits // 8
    number = struct.Struct(image.byte_order + ("Q" if width == 8 else "I"))
    addresses = [*number.unpack(image.read(_ENTRY_OFFSET, width))]
    entry = struct.Struct(image.byte_order + ("QQ" if width == 8 else "II"))
    for segment in image.segments:
        if segment.type == PT_DYNAMIC and segment.file_size <= _LARGEST_DYNAMIC:
            data = image.read(segment.offset, segment.file_size - segment.file_size % entry.size)
            addresses += [value for tag, value in entry.iter_unpack(data) if tag == DT_INIT]
    return [image.file_offset(address) for address in dict.fromkeys(addresses) if _has_code(image, address)]


def _has_code(image: Image, address: int) -> bool:
    return any(
        one.type == PT_LOAD and one.flags & PF_X and 0 <= address - one.address < one.file_size
        for one in image.segments
    )
