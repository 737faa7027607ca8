"""How a file will lie in memory: which of its pages are mapped more than once, and where its code begins to run; and
where the dynamic linker says that it has mapped others.

Input: an `Image` and offsets in the file. Output: facts for `usdtkit.trace`, from the program headers alone.
`usdtkit.maps` reads what a process really has mapped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from usdtkit.elf.constants import DT_INIT, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_INTERP, PT_LOAD
from usdtkit.elf.image import Image, Segment
from usdtkit.elf.symbols import Addresses
from usdtkit.records import NamedTuple

_STATE_OFFSET = 24  # of r_state in struct r_debug (link.h), where it has 64 bits
_ENTRY_OFFSET = 24  # of e_entry, in the headers of both widths
_LARGEST_DYNAMIC = 1 << 16


def misleads_kernel(image: Image, semaphore_offset: int, sites: Iterable[int], page: int) -> bool:
    """Return whether the kernel can raise this semaphore in the wrong place, or not as often as it will lower it.

    The kernel raises the counter in the first writable mapping of its page of the file. Linkers that save space (lld,
    mold) put data that becomes read-only after relocation on the same page as variables. That page is mapped twice, and
    the first of the two is the wrong one while a program starts. The kernel also raises the counter once for each
    mapping of a site's page that is not writable, but only once if the counter is mapped later than the sites.
    """
    loads = _loads(image)
    relro = [segment for segment in image.segments if segment.type == PT_GNU_RELRO]
    writable = [load for load in loads if load.flags & PF_W]
    constant = [
        load
        for load in loads
        if not load.flags & PF_W
        or any(load.address <= segment.address < load.address + load.file_size for segment in relro)
    ]
    return _on_page(writable, semaphore_offset, page) > 1 or any(_on_page(constant, at, page) > 1 for at in sites)


def _on_page(segments: Iterable[Segment], offset: int, page: int) -> int:
    """How many of the segments map the page with this file offset."""
    start = offset & -page
    return sum(
        segment.offset & -page <= start < segment.offset + segment.file_size
        for segment in segments
        if segment.file_size
    )


def address_of(image: Image, offset: int, *, writable: bool = False) -> int | None:
    """Return the virtual address of a file offset, None if it is not loaded; with `writable`, loaded writable."""
    for load in _loads(image):
        if 0 <= offset - load.offset < load.file_size and (load.flags & PF_W or not writable):
            return load.address + offset - load.offset
    return None


def places_of_code(image: Image, page: int) -> list[tuple[int, int]]:
    """Return (file offset, virtual address) of the page at which each executable segment begins."""
    return [(load.offset & -page, load.address & -page) for load in _loads(image) if load.flags & PF_X]


def span(image: Image, page: int) -> tuple[int, int]:
    """Return the virtual addresses that the segments take: the first, and the one behind the last."""
    loads = _loads(image)
    first = min((load.address & -page for load in loads), default=0)
    return first, max((load.address + load.file_size for load in loads), default=0)


def load_bias(image: Image, mappings: Iterable[tuple[int, int]], page: int) -> int:
    """Return how far above their addresses in the file a process has the segments.

    `mappings` are (address, file offset) of what it has mapped of the file. A page that two segments share can be the
    mapping of either, so each mapping has a vote, and the majority counts.
    """
    loads = _loads(image)
    votes: dict[int, int] = {0: 0}
    for start, offset in mappings:
        for load in loads:
            if load.offset & -page <= offset < load.offset + load.file_size:
                bias = start - (load.address - load.offset + offset)
                votes[bias] = votes.get(bias, 0) + 1
    return max(votes, key=lambda bias: votes[bias])


def first_instructions(image: Image) -> list[int]:
    """Return the file offsets where the file's own code begins to run: a program's entry, a library's DT_INIT.

    There may be none. When control comes there, the loader has mapped and relocated the whole file, and no other code
    of it has run.
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


class Notice(NamedTuple):
    """Where a dynamic linker lets debuggers know that it has mapped or removed files: a file offset.

    `state` is how far behind that address it has a number of 4 bytes that is 0 when this is done; 0 if that is unknown.
    """

    file_offset: int
    state: int


def notice(image: Image) -> Notice | None:
    """Return where this file, if it is a dynamic linker of 64 bits, calls what debuggers wait for; else None.

    It calls that function after it has mapped a program's libraries, or those of a dlopen, and before any code of them
    runs, except for resolvers of indirect functions.
    """
    if image.bits != 64 or any(segment.type == PT_INTERP for segment in image.segments):
        return None
    addresses = Addresses(image)
    function, debug = addresses.find("_dl_debug_state"), addresses.find("_r_debug")
    if function is None:
        return None
    distance = 0 if debug is None else debug + _STATE_OFFSET - function
    return Notice(image.file_offset(function), distance if 0 < distance < 1 << 32 else 0)


def _has_code(image: Image, address: int) -> bool:
    return any(load.flags & PF_X and 0 <= address - load.address < load.file_size for load in _loads(image))


def _loads(image: Image) -> list[Segment]:
    """The segments that are loaded."""
    return [segment for segment in image.segments if segment.type == PT_LOAD]
