"""One open ELF file: a path in; segments, sections, notes, build-id, and file offsets for addresses out.

Everything else in `usdtkit.elf` stands on it. The headers are read with `struct`, because importing pyelftools takes
longer than opening every file of a process; a test compares the two.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from types import TracebackType

from usdtkit.architectures import machine_name
from usdtkit.elf.constants import GNU_OWNER, NT_GNU_BUILD_ID, PF_W, PF_X, PT_LOAD, PT_NOTE, SHT_NOBITS
from usdtkit.errors import ElfError
from usdtkit.files import OpenFile
from usdtkit.records import NamedTuple

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from typing import Literal

LONGEST_NAME = 1 << 13
"""How many bytes of a string table are searched for the end of a symbol's name."""

# A section is read whole into memory, and a sparse file can claim any size. The symbol names of node are 13 MB; the
# largest known are those in the debug files of a browser.
_LARGEST_READ = 64 << 20
_LARGEST_BUILD_ID = 1 << 20  # among other notes
MOST_NOTES = 1 << 16
"""The most notes of one section that are read. A virtual machine for Java has six hundred."""
_PIECE_OF_NOTES = 1 << 18
# More than any linker makes, and as much as can be read in a moment.
_MOST_SECTIONS, _MOST_SEGMENTS, _LONGEST_SECTION_NAME = 1 << 17, 128, 256


class Segment(NamedTuple):
    """One program header; sizes and offsets in bytes, `address` is p_vaddr."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int


class Section(NamedTuple):
    """One section header; `name` keeps bytes that are not UTF-8 as surrogate escapes."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    alignment: int
    entry_size: int


def places(data: bytes, wanted: bytes) -> Iterator[int]:
    """Where some bytes are found in others."""
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


def native(numbers: array[int], order: str) -> array[int]:
    """Return the same numbers, whose bytes were in this order ("little", "big"), as this machine has them."""
    if sys.byteorder != order:
        numbers.byteswap()
    return numbers


class Image:
    """An open ELF file.

    Probes and functions that are read from it refer to `file`, which therefore stays open after `close`. It is read by
    pread and not mapped, because truncating a mapped file kills its reader by SIGBUS.
    """

    def __init__(self, path: str, file: OpenFile | int) -> None:
        """Read the headers of `file`, which messages call `path`. A number is a descriptor that is taken over."""
        self.path = path
        self._file: OpenFile | None = OpenFile(path, file) if isinstance(file, int) else file
        self._file_size = self.file.size
        self.bytes_read = 0
        self._build_id: str | None = None
        ident = self.read(0, 16) if self._file_size >= 16 else b""
        if ident[:4] != b"\x7fELF":
            raise ElfError(f"{path}: not an ELF file")
        if ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise ElfError(f"{path}: damaged ELF header: class {ident[4]}, byte order {ident[5]}")
        self.bits = 32 if ident[4] == 1 else 64
        self.little_endian = ident[5] == 1
        self.byte_order = "<" if self.little_endian else ">"
        self.order: Literal["little", "big"] = "little" if self.little_endian else "big"
        wide = self.bits == 64
        header = struct.Struct(self.byte_order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"))
        _, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = header.unpack(
            self.read(16, header.size)
        )
        self.machine = machine_name(machine, self.bits, self.little_endian)
        headers = self._section_headers(shoff, shentsize, shnum)
        if headers and phnum == 0xFFFF:  # counts that do not fit into their fields are in section 0
            phnum = headers[0][7]
        if headers and shstrndx == 0xFFFF:
            shstrndx = headers[0][6]
        self.segments = self._read_segments(phoff, phentsize, phnum)
        self.sections = self._read_sections(headers, shstrndx)
        self._code_spans, self._data_spans = self._spans(PF_X), self._spans(PF_W)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Image:
        """Open the file at `path`. NotFoundError, PrivilegeError, ElfError."""
        file = OpenFile.open(path)
        return cls(file.path, file)

    def close(self) -> None:
        """End reading. The file itself is closed when nothing refers to it any more. Closing again is harmless."""
        self._file = None

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def file(self) -> OpenFile:
        """The open file; ElfError after `close`."""
        if self._file is None:
            raise ElfError(f"{self.path}: is closed")
        return self._file

    @property
    def size(self) -> int:
        """The size of the file in bytes when it was opened."""
        return self._file_size

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`. ElfError if the file is shorter."""
        if offset < 0 or size < 0 or offset + size > self._file_size:
            raise ElfError(f"{self.path}: truncated: {size} bytes at {offset:#x} lie beyond the end of the file")
        if size > _LARGEST_READ:
            raise ElfError(f"{self.path}: {size} bytes at {offset:#x} are too much to read at once")
        self.bytes_read += size
        parts = []
        descriptor = self.file.descriptor
        while size:
            try:
                part = os.pread(descriptor, size, offset)
            except OSError as error:
                raise ElfError(f"{self.path}: cannot read: {error.strerror}") from None
            if not part:
                raise ElfError(f"{self.path}: truncated while it was read")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def section(self, name: str) -> Section | None:
        """Return the first section of that name, None if there is none."""
        return next((section for section in self.sections if section.name == name), None)

    def data(self, section: Section) -> bytes:
        """Return the bytes of a section; none if it occupies no space in the file."""
        return b"" if section.type == SHT_NOBITS else self.read(section.offset, section.size)

    def loaded(self, address: int, size: int) -> bytes:
        """Return `size` bytes of what is loaded at a virtual address. ElfError if the file does not have them all."""
        for segment in self.segments:
            if segment.type == PT_LOAD and 0 <= address - segment.address <= segment.file_size - size:
                return self.read(address - segment.address + segment.offset, size)
        raise ElfError(f"{self.path}: {size} bytes at address {address:#x} are not loaded from the file")

    def notes(self, offset: int, size: int, alignment: int = 4) -> Iterator[tuple[bytes, int, bytes]]:
        """Walk the notes in `size` bytes of the file from `offset`: (owner without its NUL, type, description)."""
        for kind, data, owner_at, owner_size, start, end in self.note_places(offset, size, alignment):
            yield data[owner_at : owner_at + owner_size].rstrip(b"\0"), kind, data[start:end]

    def note_places(
        self, offset: int, size: int, alignment: int = 4
    ) -> Iterator[tuple[int, bytes, int, int, int, int]]:
        """Walk the notes like `notes` without copying them: (type, data, owner's start and size, description's start
        and end), all within `data`. If a file has hundreds of notes, copying them costs as much as the walk.

        The file is read piece by piece. ElfError is raised at the note that is one too many: an empty note takes 12
        bytes and, in a sparse file, no space on the disk, so that a walk over millions of them would take seconds.
        """
        padding = 7 if alignment == 8 else 3
        unpack = struct.Struct(self.byte_order + "III").unpack_from
        count, walked = 0, 0  # `walked` in bytes
        piece_size = _PIECE_OF_NOTES
        while walked + 12 <= size:
            data = self.read(offset + walked, min(piece_size, size - walked))
            position, available = 0, len(data)
            piece_size = _PIECE_OF_NOTES
            while position + 12 <= available:
                owner_size, description_size, kind = unpack(data, position)
                start = position + (12 + owner_size + padding & ~padding)
                end = start + description_size
                if end > available:
                    if walked + end > size:
                        raise ElfError(
                            f"{self.path}: damaged note: {owner_size} + {description_size} bytes at "
                            f"{walked + position} of {size}"
                        )
                    piece_size = max(piece_size, end - position)
                    break
                count += 1
                if count > MOST_NOTES:
                    raise ElfError(f"{self.path}: damaged: more than {MOST_NOTES} notes")
                yield kind, data, position + 12, owner_size, start, end
                position += end - position + padding & ~padding
            walked += position

    @property
    def build_id(self) -> str:
        """The GNU build-id in hex, "" if there is none."""
        if self._build_id is None:
            self._build_id = self._find_build_id()
        return self._build_id

    def file_offset(self, address: int, *, writable: bool = False) -> int:
        """Return where a virtual address lies in the file, by the executable PT_LOAD that holds it.

        With `writable`, as for a semaphore, it is a writable PT_LOAD. ElfError if no such segment holds the address,
        or only as memory that the file does not fill (.bss).
        """
        for start, size, place in self._data_spans if writable else self._code_spans:
            if 0 <= address - start < size:
                return address - start + place
        kind = "writable" if writable else "executable"
        raise ElfError(f"{self.path}: address {address:#x} lies in no {kind} segment of the file")

    def address(self, file_offset: int) -> int:
        """Return the virtual address of a file offset. ElfError if it is not loaded executable."""
        for start, size, place in self._code_spans:
            if 0 <= file_offset - place < size:
                return file_offset - place + start
        raise ElfError(f"{self.path}: offset {file_offset:#x} lies in no executable segment of the file")

    def _spans(self, flag: int) -> list[tuple[int, int, int]]:
        """(address, size in the file, file offset) of each segment that is loaded with the flag."""
        return [
            (s.address, min(s.file_size, self._file_size - s.offset), s.offset)
            for s in self.segments
            if s.type == PT_LOAD and s.flags & flag
        ]

    def _find_build_id(self) -> str:
        section = self.section(".note.gnu.build-id")
        if section is not None:
            places = [(section.offset, section.size, section.alignment)]
        else:
            places = [(s.offset, s.file_size, 4) for s in self.segments if s.type == PT_NOTE]
        for offset, size, alignment in places:
            if size > _LARGEST_BUILD_ID:
                continue
            for owner, kind, description in self.notes(offset, size, alignment):
                if kind == NT_GNU_BUILD_ID and owner == GNU_OWNER.encode():
                    return description.hex()
        return ""

    def _table(self, what: str, offset: int, entry_size: int, count: int, layout: str) -> list[tuple[int, ...]]:
        entry = struct.Struct(self.byte_order + layout)
        if count == 0:
            return []
        if count > (_MOST_SEGMENTS if what == "program" else _MOST_SECTIONS):
            raise ElfError(f"{self.path}: damaged ELF header: {count} {what} headers")
        if entry_size < entry.size:
            raise ElfError(f"{self.path}: damaged ELF header: {what} headers of {entry_size} bytes")
        data = self.read(offset, entry_size * count)
        return [entry.unpack_from(data, position) for position in range(0, len(data), entry_size)]

    def _section_headers(self, offset: int, entry_size: int, count: int) -> list[tuple[int, ...]]:
        if offset == 0:
            return []
        layout = "IIQQQQIIQQ" if self.bits == 64 else "IIIIIIIIII"
        if count == 0:
            count = self._table("section", offset, entry_size, 1, layout)[0][5]
        return self._table("section", offset, entry_size, count, layout)

    def _read_segments(self, offset: int, entry_size: int, count: int) -> tuple[Segment, ...]:
        if self.bits == 64:
            rows = self._table("program", offset, entry_size, count, "IIQQQQQQ")
            return tuple(Segment(kind, flags, at, address, size) for kind, flags, at, address, _, size, _, _ in rows)
        rows = self._table("program", offset, entry_size, count, "IIIIIIII")
        return tuple(Segment(kind, flags, at, address, size) for kind, at, address, _, size, _, flags, _ in rows)

    def _read_sections(self, headers: list[tuple[int, ...]], names_index: int) -> tuple[Section, ...]:
        names = b""
        if 0 < names_index < len(headers):
            _, kind, _, _, offset, size, *_ = headers[names_index]
            names = b"" if kind == SHT_NOBITS else self.read(offset, size)
        return tuple(
            Section(_text_at(names, name), kind, flags, address, offset, size, link, alignment, entry_size)
            for name, kind, flags, address, offset, size, link, _, alignment, entry_size in headers
        )


def _text_at(strings: bytes, offset: int) -> str:
    """The NUL-terminated string at an offset of a table, "" if there is none; bad UTF-8 as surrogate escapes."""
    end = strings.find(b"\0", offset, offset + _LONGEST_SECTION_NAME)
    return strings[offset:end].decode("utf-8", "surrogateescape") if end >= 0 else ""
