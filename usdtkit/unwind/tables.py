"""An open ELF file → a table that says, for each address of its code, how to find the frame of the caller.

Input `usdtkit.elf.image.Image`; output `Table`, whose rows and index are bytes as a program in the kernel searches
them. Compilers describe every function in .eh_frame, and strip keeps it. What is described only in .debug_frame, as in
programs of Go, is read from there. The rows are made in C (native/unwind.h says what their fields mean) from all
entries of the sections in their order. The sorted table of .eh_frame_hdr is not used: it saves only the sorting of
ranges, and could lead to the same bytes again and again. Damaged files raise ElfError; what rows cannot say is counted.
"""

from __future__ import annotations

import errno
import os
import struct

from usdtkit._ffi import ffi, lib
from usdtkit.elf.constants import PF_X, PT_GNU_EH_FRAME, PT_LOAD
from usdtkit.elf.image import Image, Segment
from usdtkit.elf.unpacking import unpacked
from usdtkit.errors import ElfError, UnsupportedError
from usdtkit.records import NamedTuple, dataclass

PAGE = 4096
"""Bytes of a page of the index, on every architecture."""

# enum usdtkit_unwind_frame: how the canonical frame address is found, which is the stack pointer before the call.
NONE, SP, FP, PLT, SIGNAL, AT_FP, AT_SP, BEHIND_SP, END, RAX, R10, R11, OTHER = range(13)
# enum usdtkit_unwind_saved: where the caller's frame pointer is, and on aarch64 the return address.
NOT_SAVED, SAVED_FP, SAVED_AT_FP, LOST, SAVED_PAIR, SAVED_PAIR_HIGH, SAVED_RA, SAVED_RA_HIGH = range(8)

REASONS = (
    *("ranges", "outside", "overlapping", "unreadable", "damaged", "expression", "register", "distance"),
    *("return address", "frame pointer", "signal"),
)
"""The names of what is counted, in the order of enum usdtkit_unwind_count."""

ROW = struct.Struct("<IhBB")
"""A row: address, offset, frame | saved << 4, slot."""

_EH_FRAME, _EH_FRAME_ENDED, _DEBUG_FRAME = range(3)
_PLACE_FROM_HERE = b"\x01\x1b"  # .eh_frame_hdr of version 1, which has the place of .eh_frame as 4 bytes from there
_LARGEST_FRAMES = 64 << 20  # as of what is read from a file at once
_FARTHEST = 0xFFFFFFFF - PAGE  # bytes of a file's addresses


class LoadRange(NamedTuple):
    """Executable code of the file: `address` in bytes from the table's `lowest`, `size` and `offset` in the file."""

    address: int
    size: int
    offset: int


class Row(NamedTuple):
    """One row: it holds from `address`, in bytes from the table's `lowest`, to the next row.

    `frame` and `saved` are two of the numbers above. `offset` and `slot` are in units of 8 bytes.
    """

    address: int
    offset: int
    frame: int
    saved: int
    slot: int


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of one file.

    `rows` has 8 bytes for each row, in the order of their addresses: u32 address, s16 offset, u8 frame | saved << 4, u8
    slot, little-endian. The first row is at 0, and the last says that nothing is known from there on. `index` has a u32
    for each page from `lowest` to the end of the code, and one more: the number of the last row at or before its first
    byte. So the row of an address is one from `index[page]` to `index[page + 1]`. `lowest` is the virtual address that
    rows and ranges count from: the first page that is loaded. `counts` has all of `REASONS`.
    """

    machine: str
    lowest: int
    rows: bytes
    index: bytes
    ranges: tuple[LoadRange, ...]
    counts: dict[str, int]

    def find(self, address: int) -> Row:
        """Return the row for a virtual address, as the kernel finds it; one of kind NONE outside of the file."""
        inside = address - self.lowest
        page = inside // PAGE
        if not 0 <= page < len(self.index) // 4 - 1:
            return Row(0, 0, NONE, NOT_SAVED, 0)
        low, high = struct.unpack_from("<II", self.index, 4 * page)
        while low < high:
            middle = (low + high + 1) // 2
            if self.row(middle).address <= inside:
                low = middle
            else:
                high = middle - 1
        return self.row(low)

    def row(self, number: int) -> Row:
        """Return the row of this number. struct.error if there is none."""
        address, offset, kinds, slot = ROW.unpack_from(self.rows, number * ROW.size)
        return Row(address, offset, kinds & 0x0F, kinds >> 4, slot)

    def __len__(self) -> int:
        return len(self.rows) // ROW.size


class Frames(NamedTuple):
    """A section with call frame information, its virtual address, and its kind."""

    data: bytes
    address: int
    kind: int


class Description(NamedTuple):
    """All that a table is made of, as it was read from a file. `end` is that of the code, in bytes from `lowest`."""

    path: str
    machine: str
    lowest: int
    end: int
    ranges: tuple[LoadRange, ...]
    sections: tuple[Frames, ...]


def read_table(image: Image) -> Table:
    """Return the table of a file: that of its description."""
    return make_table(describe(image))


def describe(image: Image) -> Description:
    """Read what the table of a file is made of.

    ElfError if the file is damaged. UnsupportedError of a machine other than x86-64 and aarch64.
    """
    if image.bits != 64 or image.machine not in ("x86_64", "aarch64"):
        raise UnsupportedError(f"{image.path}: call frame information of {image.machine} is not read")
    loads = [segment for segment in image.segments if segment.type == PT_LOAD]
    lowest = min((segment.address for segment in loads), default=0) // PAGE * PAGE
    codes = [s for s in loads if s.flags & PF_X and s.file_size]
    end = max((segment.address + segment.file_size for segment in codes), default=lowest)
    if end - lowest > _FARTHEST:
        raise ElfError(f"{image.path}: code at {end:#x} is too far from the first address {lowest:#x}")
    ranges = tuple(LoadRange(s.address - lowest, s.file_size, s.offset) for s in codes)
    return Description(image.path, image.machine, lowest, end - lowest, ranges, tuple(_frames(image)))


def _frames(image: Image) -> list[Frames]:
    """The sections with call frame information. A program that was compiled to have only .debug_frame has a small
    .eh_frame too, of what every program is linked with.
    """
    found = []
    section = image.section(".eh_frame")
    if section is not None and (data := image.data(section)):
        found.append(Frames(data, section.address, _EH_FRAME))
    for segment in image.segments if not image.sections else ():
        if segment.type == PT_GNU_EH_FRAME:
            return [_by_header(image, segment)]
    data = b"".join(unpacked(image, ".debug_frame", _LARGEST_FRAMES))
    if len(data) > _LARGEST_FRAMES:
        raise ElfError(f"{image.path}: .debug_frame is too large")
    if data:
        found.append(Frames(data, 0, _DEBUG_FRAME))
    return found


def _by_header(image: Image, segment: Segment) -> Frames:
    """.eh_frame of a file without section headers: from where .eh_frame_hdr says to the end of what is loaded there."""
    header = image.read(segment.offset, min(8, segment.file_size))
    if header[:2] == _PLACE_FROM_HERE and len(header) == 8:
        address = segment.address + 4 + struct.unpack_from("<i", header, 4)[0]
        for load in image.segments:
            if load.type == PT_LOAD and 0 <= (inside := address - load.address) < load.file_size:
                return Frames(image.read(load.offset + inside, load.file_size - inside), address, _EH_FRAME_ENDED)
    raise ElfError(f"{image.path}: damaged .eh_frame_hdr")


def make_table(described: Description) -> Table:
    """Make the table of a file; one row that says nothing, if the file has no call frame information.

    ElfError if that is damaged, or the file is not linked.
    """
    lowest, path = described.lowest, described.path
    buffers = [ffi.from_buffer("uint8_t[]", each.data) for each in described.sections]
    sections = ffi.new(
        "usdtkit_unwind_section[]",
        [(data, len(data), each.address, each.kind) for data, each in zip(buffers, described.sections, strict=True)],
    )
    places = [(lowest + each.address, lowest + each.address + each.size) for each in described.ranges]
    code = ffi.new("usdtkit_unwind_code[]", places)
    counts = len(sections), len(code), lowest, described.machine == "aarch64"
    source = ffi.new("usdtkit_unwind_source *", (sections, code, *counts))
    table = ffi.new("usdtkit_unwind_table *")
    result = lib.usdtkit_unwind_read(source, table)
    try:
        if result < 0:
            problem = {
                -errno.EINVAL: f"the entry at {table.stopped:#x} does not lie in the section",
                -errno.E2BIG: "there are too many entries or rows",
            }.get(result, os.strerror(-result))
            raise ElfError(f"{path}: damaged call frame information: {problem}")
        pages = -(-described.end // PAGE)
        index = ffi.new("uint32_t[]", pages + 1)
        lib.usdtkit_unwind_index(table, index, pages + 1)
        rows = bytes(ffi.buffer(table.rows, table.count * ROW.size))
        reasons = dict(zip(REASONS, table.counts, strict=True))
        return Table(described.machine, lowest, rows, bytes(ffi.buffer(index)), described.ranges, reasons)
    finally:
        lib.usdtkit_unwind_free(table)
