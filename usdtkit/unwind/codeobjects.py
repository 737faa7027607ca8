"""What is known of a piece of Python's code: its names, and the lines of its instructions.

Input: the bytes of strs and of the table of lines (co_lnotab, or from 3.10 on co_linetable) as they are in the memory
of a process, which `usdtkit.unwind.pythons` reads from outside and bpf/pythonframes.c in the kernel. Output: names, and
lines as tracebacks have them. The bytes are hostile: whatever they are, the time is linear in their number.
"""

from __future__ import annotations

from usdtkit.records import NamedTuple

LONGEST_NAME, LONGEST_FILE, LONGEST_LINES = 255, 511, 4095
"""Bytes that are read of a function's name, of its file's, and of its table of lines, as in bpf/pythonframes.c."""

_CHARACTERS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
WIDTHS = frozenset(_CHARACTERS)
"""How many bytes a character of a str can have."""


class CodeObject(NamedTuple):
    """A function, or another piece of code, of a CPython of this version. `lines` may be cut at LONGEST_LINES."""

    version: tuple[int, int]
    name: str
    file: str
    first_line: int
    lines: bytes

    @property
    def is_internal(self) -> bool:
        """Whether it is none of the program's: CPython puts a frame of its own around calls of classes (3.12)."""
        return self.file == self.name == "__init__"

    def line(self, at: int) -> int | None:
        """The line of the instruction that a frame is at; None if it has none, or `lines` is cut before it.

        `at` is in bytes from the first instruction, except in 3.10, which numbers instructions.
        """
        offset = 2 * at if self.version == (3, 10) else at
        return _line_of(self.version, self.lines, self.first_line, offset)


def text_of(data: bytes, width: int, longest: int) -> str:
    """Characters of `width` bytes each, as a str has them in memory; what is none is replaced. Of a text that fills the
    `longest` bytes which are read, the last one is "…"."""
    is_cut = len(data) + width > longest
    return data[: -width if is_cut else None].decode(_CHARACTERS[width], "replace") + "…" * is_cut


def utf8_of(data: bytes, longest: int) -> str:
    """The same of languages whose strings are bytes, UTF-8 in most programs."""
    return data[:-1].decode("utf-8", "ignore") + "…" if len(data) >= longest else data.decode("utf-8", "replace")


def _line_of(version: tuple[int, int], table: bytes, first_line: int, at: int) -> int | None:
    """The line of the instruction `at` bytes from the first one, before which the function has not begun yet."""
    if at < 0:
        return first_line
    if version < (3, 10):
        return _by_pairs(table, first_line, at)
    return _by_ranges(table, first_line, at) if version < (3, 11) else _by_locations(table, first_line, at)


def _by_pairs(table: bytes, line: int, at: int) -> int:
    """By pairs of bytes: how far the next range of instructions is, and how many lines further."""
    address = 0
    for forward, lines in zip(table[::2], table[1::2], strict=False):
        address += forward
        if address > at:
            break
        line += _signed(lines)
    return line


def _by_ranges(table: bytes, line: int, at: int) -> int | None:
    """By pairs of bytes (PEP 626): how long a range of instructions is, and how many lines further it is."""
    end = 0
    for size, lines in zip(table[::2], table[1::2], strict=False):
        has_line = lines != 0x80
        line += _signed(lines) if has_line else 0
        end += size
        if end > at:
            return line if has_line else None
    return None


def _by_locations(table: bytes, line: int, at: int) -> int | None:
    """By entries, each of which begins with a byte that has the highest bit (Objects/locations.md of CPython)."""
    end, place = 0, 0
    while place < len(table):
        first = table[place]
        kind = first >> 3 & 15
        place += 1
        body = place
        while place < len(table) and not table[place] & 0x80:
            place += 1
        if kind in (13, 14):  # a number of varying length
            line += _varying(table[body:place])
        elif 10 <= kind <= 12:
            line += kind - 10
        end += 2 * ((first & 7) + 1)
        if end > at:
            return None if kind == 15 else line
    return None


def _varying(data: bytes) -> int:
    """A signed number in groups of 6 bits, the lowest first; its sign is the lowest bit."""
    value = 0
    for n, byte in enumerate(data[:6]):
        value |= (byte & 63) << 6 * n
        if not byte & 64:
            break
    return -(value >> 1) if value & 1 else value >> 1


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte
