"""The lines of a piece of Ruby's code (an instruction sequence), by the tables that Ruby has for it in memory.

Input: the bytes of both tables, which `usdtkit.unwind.rubies` reads from outside and bpf/rubyframes.c in the kernel.
Output: lines as backtraces have them. The first
table says of each word of instructions how many lines begin at or before it: of the first 54 words by 7 bits each, nine
in 8 bytes, and then for each 512 words in a block of 80 bytes. Such a block has a number of lines before it, one of 9
bits for each but the first of its eight parts, and a bit for each word at which a line begins. The bytes are hostile.
"""

from __future__ import annotations

import struct

from usdtkit.records import NamedTuple

MOST_INSTRUCTIONS = 1 << 20
"""Words of instructions in a piece of code, more than which are not believed."""
_FIRST, _A_WORD, _BLOCK = 54, 9, 512
_IMMEDIATE = 8 * _FIRST // _A_WORD
_BLOCK_OF = struct.Struct("<I4xQ8Q")


class Iseq(NamedTuple):
    """A method, block or other piece of code. Without `positions` it has at most one line. Each of the `lines` has
    `line_size` bytes."""

    name: str
    file: str
    positions: bytes
    lines: bytes
    line_size: int

    def line(self, at: int) -> int | None:
        """The line of a word of instructions; None if it has none, or the tables are cut before it. A frame is at the
        word before the instruction that is to be executed next."""
        if at < 0:
            return None
        number = (_lines_until(self.positions, at) - 1) * self.line_size if self.positions else 0
        if not 0 <= number <= len(self.lines) - 4:
            return None
        return int.from_bytes(self.lines[number : number + 4], "little") or None


def size_of_positions(instructions: int) -> int:
    """Bytes of the table for so many words of instructions."""
    return _IMMEDIATE + _BLOCK_OF.size * -(-max(instructions - _FIRST, 0) // _BLOCK)


def _lines_until(positions: bytes, at: int) -> int:
    """How many lines begin at or before a word; 0 if the table does not reach there."""
    if at < _FIRST:
        word = positions[at // _A_WORD * 8 : at // _A_WORD * 8 + 8]
        return int.from_bytes(word, "little") >> 7 * (at % _A_WORD) & 0x7F
    block, bit = divmod(at - _FIRST, _BLOCK)
    start = _IMMEDIATE + block * _BLOCK_OF.size
    if start + _BLOCK_OF.size > len(positions):
        return 0
    before, of_parts, *parts = _BLOCK_OF.unpack_from(positions, start)
    part, bit = divmod(bit, 64)
    in_block = of_parts >> 9 * (part - 1) & 0x1FF if part else 0
    lines: int = before + in_block + (parts[part] & (2 << bit) - 1).bit_count()
    return lines
