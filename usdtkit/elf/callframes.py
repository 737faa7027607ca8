"""An open ELF file → where its functions begin and end, and where the stack is in them, by its call frame information.

Input `usdtkit.elf.image.Image`; used by `usdtkit.elf.exits`. Compilers write .eh_frame for every function, and strip
keeps it, because throwing exceptions needs it. The description of an address is found by binary search in the table of
.eh_frame_hdr; without that table, all descriptions are read once. Damaged descriptions count as absent.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right

from usdtkit.elf.constants import PT_GNU_EH_FRAME, PT_LOAD
from usdtkit.elf.image import Image, native
from usdtkit.errors import ElfError
from usdtkit.records import NamedTuple

# DW_EH_PE_*: the lower half of a byte is a format, the upper half what it is relative to.
_FORMATS = {0x00: "Q", 0x02: "H", 0x03: "I", 0x04: "Q", 0x0A: "h", 0x0B: "i", 0x0C: "q"}  # of 64-bit files
_RELATIVE_TO_PLACE, _ABSOLUTE = 0x10, 0x00
_SEARCHABLE = b"\x01\x1b\x03\x3b"  # version 1; pointer from here, count of 4 bytes, entries of 4 bytes from the header
_LONGEST_ENTRY = 1 << 16  # the longest of node has 3 KB
_MOST_ENTRIES = 1 << 19  # read if there is no table: 6 times those of a browser
_STACK_POINTER = {"x86_64": 7, "aarch64": 31}

# DW_CFA_*, the instructions of a description. Those that move on to a later address, with the size of their operand,
# and the operands of those that only say where registers are: u is a number of varying length, b a block with its
# length before it.
_ADVANCES = {0x02: ("B", 1), 0x03: ("H", 2), 0x04: ("I", 4)}
_OTHER_OPERANDS = {
    **{0x00: "", 0x05: "uu", 0x06: "u", 0x07: "u", 0x08: "u", 0x09: "uu", 0x10: "ub", 0x11: "uu", 0x14: "uu"},
    **{0x15: "uu", 0x16: "ub", 0x2D: "", 0x2E: "u", 0x2F: "uu"},
}


class Rule(NamedTuple):
    """The canonical frame address, which is the stack pointer before the call: `offset` bytes above a register.

    `register` is the number that DWARF gives it; -1 if the rule is an expression.
    """

    register: int
    offset: int


class Description(NamedTuple):
    """One range of addresses that has call frame information: a function, or a part of one.

    `end` is the address behind it. With `has_handlers` it has handlers for exceptions, so control can come to places in
    it that none of its instructions leads to. `at` and `until` say where in the section its instructions are.
    """

    start: int
    end: int
    has_handlers: bool
    at: int
    until: int
    common: _Common

    @property
    def size(self) -> int:
        """Bytes of the range."""
        return self.end - self.start


class _Common(NamedTuple):
    """The part that several descriptions share (a CIE)."""

    code_alignment: int
    data_alignment: int
    encoding: int
    handlers_encoding: int | None
    is_augmented: bool
    at: int
    until: int


class CallFrames:
    """The call frame information of one file, read when it is first needed."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._order = image.byte_order
        self._data: bytes | None = None
        self._address = 0  # of the section
        # Where ranges start, in order, less `_base`, and where their descriptions are in the section, less `_shift`.
        self._starts: array[int] = array("q")
        self._places: array[int] = array("q")
        self._base = self._shift = 0
        self._commons: dict[int, _Common | None] = {}
        self._descriptions: dict[int, Description | None] = {}
        self._rules: dict[int, tuple[list[int], list[Rule]] | None] = {}
        self.at_entry = Rule(_STACK_POINTER.get(image.machine, -1), 8 if image.machine == "x86_64" else 0)
        """The rule at a function's entry, and again when it has removed everything from the stack."""

    def covering(self, address: int) -> Description | None:
        """Return the description of the range with a virtual address; None if there is none, or it is damaged."""
        data = self._section()
        at = bisect_right(self._starts, address - self._base) - 1
        if at < 0:
            return None
        place = self._places[at] + self._shift
        if place not in self._descriptions:
            self._descriptions[place] = self._description(data, place)
        found = self._descriptions[place]
        return found if found is not None and found.start <= address < found.end else None

    def rule(self, address: int) -> Rule | None:
        """Return the rule that holds before the instruction at a virtual address; None if it is unknown."""
        found = self.covering(address)
        if found is None:
            return None
        if found.at not in self._rules:
            try:
                self._rules[found.at] = self._rows(found)
            except (IndexError, KeyError, OverflowError, struct.error):  # damaged
                self._rules[found.at] = None
        rows = self._rules[found.at]
        return rows[1][bisect_right(rows[0], address) - 1] if rows is not None else None

    def _section(self) -> bytes:
        """.eh_frame; with it the table of starts is read, or made."""
        if self._data is None:
            self._data = b""
            try:
                table, base, self._data, self._address = self._read()
                if not self._take_table(table, base):
                    self._go_through(self._data)
            except (ElfError, struct.error):  # damaged: as if there were none
                self._data = b""
        return self._data

    def _read(self) -> tuple[bytes, int, bytes, int]:
        """.eh_frame_hdr and its address, .eh_frame and its address; empty if there is none."""
        image = self._image
        header, frames = image.section(".eh_frame_hdr"), image.section(".eh_frame")
        if frames is not None:
            table, base = (image.data(header), header.address) if header is not None else (b"", 0)
            return table, base, image.data(frames), frames.address
        for segment in image.segments:  # of a file without sections
            if segment.type != PT_GNU_EH_FRAME:
                continue
            table = image.read(segment.offset, segment.file_size)
            if table[:4] == _SEARCHABLE:
                address = segment.address + 4 + struct.unpack_from(f"{self._order}i", table, 4)[0]
                for load in image.segments:
                    if load.type == PT_LOAD and 0 <= (inside := address - load.address) < load.file_size:
                        data = image.read(load.offset + inside, load.file_size - inside)
                        return table, segment.address, data, address
        return b"", 0, b"", 0

    def _take_table(self, table: bytes, base: int) -> bool:
        """Take the table of .eh_frame_hdr, whose numbers are relative to its own start; False if there is none."""
        if table[:4] != _SEARCHABLE or len(table) < 20:
            return False
        count = struct.unpack_from(f"{self._order}I", table, 8)[0]
        words = native(array("i", table[12 : 12 + 8 * min(count, (len(table) - 12) // 8)]), self._image.order)
        self._starts, self._places = words[::2], words[1::2]
        self._base, self._shift = base, base - self._address
        return True

    def _go_through(self, data: bytes) -> None:
        """Make the table from all descriptions, one after the other."""
        found: list[tuple[int, int]] = []
        position = 0
        for _ in range(_MOST_ENTRIES):
            if position + 8 > len(data):
                break
            description = self._description(data, position)
            if description is not None and description.start < 1 << 63:
                found.append((description.start, position))
            position += 4 + struct.unpack_from(f"{self._order}I", data, position)[0]
        found.sort()
        self._starts = array("q", [start for start, _ in found])
        self._places = array("q", [place for _, place in found])

    def _description(self, data: bytes, place: int) -> Description | None:
        """The description (an FDE) at a place of the section; None of a common part, or what is damaged."""
        try:
            length, back = struct.unpack_from(f"{self._order}II", data, place) if place >= 0 else (0, 0)
            until = place + 4 + length
            if not 8 < length <= _LONGEST_ENTRY or until > len(data) or not 0 < back <= place + 4:
                return None
            common = self._common(data, place + 4 - back)
            if common is None:
                return None
            start, position = self._pointer(data, place + 8, common.encoding)
            size, position = self._pointer(data, position, common.encoding & 0x0F)
            handlers = 0
            if common.is_augmented:
                skipped, position = _unsigned(data, position)
                if skipped and common.handlers_encoding is not None:
                    handlers, _ = self._pointer(data, position, common.handlers_encoding & 0x0F)
                position += skipped
        except (IndexError, KeyError, struct.error):
            return None
        if size <= 0 or position > until:
            return None
        return Description(start, start + size, handlers != 0, position, until, common)

    def _common(self, data: bytes, place: int) -> _Common | None:
        """The common part at a place, None if something else is there. IndexError, struct.error, … if it is damaged."""
        if place in self._commons:
            return self._commons[place]
        self._commons[place] = None
        length, number = struct.unpack_from(f"{self._order}II", data, place)
        until, version = place + 4 + length, data[place + 8]
        if number or length > _LONGEST_ENTRY or until > len(data) or version not in (1, 3):
            return None
        text_end = data.find(0, place + 9, min(until, place + 9 + 16))
        if text_end < 0:
            return None
        augmentation = data[place + 9 : text_end]
        code_alignment, position = _unsigned(data, text_end + 1)
        data_alignment, position = _signed(data, position)
        _, position = _unsigned(data, position)  # the register of the return address
        encoding, handlers = _ABSOLUTE, None
        if augmentation[:1] == b"z":
            size, position = _unsigned(data, position)
            after = position + size
            for letter in augmentation[1:].decode("latin-1"):
                if letter == "R":
                    encoding, position = data[position], position + 1
                elif letter == "L":
                    handlers, position = data[position], position + 1
                elif letter == "P":
                    _, position = self._pointer(data, position + 1, data[position] & 0x0F)
            position = after
        elif augmentation:
            return None
        if position > until:
            return None
        self._commons[place] = _Common(
            code_alignment, data_alignment, encoding, handlers, bool(augmentation), position, until
        )
        return self._commons[place]

    def _pointer(self, data: bytes, position: int, encoding: int) -> tuple[int, int]:
        """The number that is encoded at a position, and the position behind it. KeyError of a rare encoding."""
        format = _FORMATS[encoding & 0x0F]
        value: int = struct.unpack_from(self._order + format, data, position)[0]
        relative = encoding & 0xF0
        if relative == _RELATIVE_TO_PLACE:
            value += self._address + position
        elif relative != _ABSOLUTE:
            raise KeyError(encoding)
        return value, position + struct.calcsize(self._order + format)

    def _rows(self, description: Description) -> tuple[list[int], list[Rule]]:
        """(addresses, rules): each rule holds from its address to the next one."""
        data, common = self._section(), description.common
        rule = self._run(data, common.at, common.until, common, 0, Rule(-1, 0), [], [])
        addresses, rules = [description.start], [rule]
        self._run(data, description.at, description.until, common, description.start, rule, addresses, rules)
        return addresses, rules

    def _run(
        self,
        data: bytes,
        position: int,
        until: int,
        common: _Common,
        location: int,
        rule: Rule,
        addresses: list[int],
        rules: list[Rule],
    ) -> Rule:
        """Execute the instructions of a description or common part, and note each change of the rule."""
        remembered: list[Rule] = []
        order = self._order
        while position < until:
            byte = data[position]
            position += 1
            high = byte >> 6
            if high == 1:
                location += (byte & 0x3F) * common.code_alignment
                continue
            if high == 2:  # where a register is saved
                _, position = _unsigned(data, position)
                continue
            if high == 3:
                continue
            before = rule
            if byte == 0x0E:
                offset, position = _unsigned(data, position)
                rule = Rule(rule.register, offset)
            elif byte == 0x0C:
                register, position = _unsigned(data, position)
                offset, position = _unsigned(data, position)
                rule = Rule(register, offset)
            elif byte == 0x0D:
                register, position = _unsigned(data, position)
                rule = Rule(register, rule.offset)
            elif byte == 0x0A:
                remembered.append(rule)
            elif byte == 0x0B:
                rule = remembered.pop()
            elif byte in _ADVANCES:
                format, size = _ADVANCES[byte]
                location += struct.unpack_from(order + format, data, position)[0] * common.code_alignment
                position += size
            elif byte == 0x01:
                location, position = self._pointer(data, position, common.encoding)
            elif byte == 0x0F:
                size, position = _unsigned(data, position)
                position += size
                rule = Rule(-1, 0)
            elif byte == 0x12:
                register, position = _unsigned(data, position)
                offset, position = _signed(data, position)
                rule = Rule(register, offset * common.data_alignment)
            elif byte == 0x13:
                offset, position = _signed(data, position)
                rule = Rule(rule.register, offset * common.data_alignment)
            else:
                for kind in _OTHER_OPERANDS[byte]:
                    value, position = _unsigned(data, position)
                    position += value if kind == "b" else 0
            if rule is not before:
                if addresses and addresses[-1] >= location:
                    rules[-1] = rule
                else:
                    addresses.append(location)
                    rules.append(rule)
        return rule


def _unsigned(data: bytes, position: int) -> tuple[int, int]:
    """The ULEB128 at a position, and the position behind it. IndexError if it does not end, or is too large."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value = shift = 0
    for at in range(position, position + 10):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at + 1
    raise IndexError(position)


def _signed(data: bytes, position: int) -> tuple[int, int]:
    value, after = _unsigned(data, position)
    bits = 7 * (after - position)
    return (value - (1 << bits) if value >> (bits - 1) else value), after
