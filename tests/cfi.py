"""A small assembler of call frame information, for sections that no compiler makes."""

import struct

# DW_CFA_*
SET_LOC, ADVANCE_1, ADVANCE_2, ADVANCE_4, UNDEFINED, SAME = 0x01, 0x02, 0x03, 0x04, 0x07, 0x08
REMEMBER, RESTORE, DEF_CFA, DEF_CFA_REGISTER, DEF_CFA_OFFSET, DEF_CFA_EXPRESSION = 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
EXPRESSION = 0x10


def unsigned(number):
    """ULEB128."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def advance(distance):
    """Move on, by the shortest instruction."""
    if distance < 0x40:
        return bytes([0x40 | distance])
    code, format = (
        (ADVANCE_1, "B") if distance < 0x100 else (ADVANCE_2, "H") if distance < 0x10000 else (ADVANCE_4, "I")
    )
    return struct.pack("<B" + format, code, distance)


def op(code, *numbers):
    """An instruction whose operands are ULEB128."""
    return bytes([code]) + b"".join(map(unsigned, numbers))


def saved(register, units):
    """The caller's register is that many units below the frame address."""
    return bytes([0x80 | register]) + unsigned(units)


def block(code, *numbers, expression):
    """An instruction that ends in an expression."""
    return op(code, *numbers) + unsigned(len(expression)) + expression


def common(instructions=b"\x0c\x07\x08\x90\x01", letters=b"zR", register=16, encoding=0x1B):
    """A common part; at first CFA is rsp + 8, and the return address 8 bytes below it."""
    data = b"\1" + letters + b"\0" + unsigned(1) + b"\x78" + bytes([register])
    if letters:
        data += unsigned(1) + bytes([encoding])
    return _entry(struct.pack("<I", 0) + data + instructions)


def described(section, address, start, size, instructions):
    """The section with one more range, by the common part at its start; `address` is the section's."""
    place = address + len(section) + 8
    head = struct.pack("<IiI", len(section) + 4, start - place, size) + b"\0"
    return section + _entry(head + instructions)


def _entry(content):
    content += bytes(-len(content) % 4)
    return struct.pack("<I", len(content)) + content
