"""Shared by the operand grammars: their interface, the error for operands that cannot be read, and bounded numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from usdtkit.model import Operand
from usdtkit.records import NamedTuple

SymbolResolver = Callable[[str], int | None]
"""Name → virtual address in the same file, or None if it is unknown or not unique. The name `.` means the site's own
address, as it does for an assembler."""

_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", re.ASCII)
_TERM = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|[A-Za-z_.][\w.$@]*)", re.ASCII)


class Place(NamedTuple):
    """Where a value is, in the terms of `Operand`, before its size and sign are known."""

    kind: Literal["constant", "register", "memory"]
    size: int = 8
    value: int = 0
    base: str | None = None
    index_register: str | None = None
    scale: int = 1
    shift: int = 0


class Grammar(NamedTuple):
    """The operands of one architecture.

    `parse(body, site_address, resolve_symbol)` reads an operand without its size. The size in its result is that of the
    register, else `word`, which is the size of a pointer in bytes. It raises Unreadable. `render(operand)` is the
    reverse. `common(text)` reads a whole operand that has one of the most common forms, or returns None.
    """

    parse: Callable[[str, int, SymbolResolver], Place]
    render: Callable[[Operand], str]
    word: int
    common: Callable[[str], Operand | None] = lambda _: None


class Unreadable(Exception):
    """No value can be read from the operand; the text says why. It is caught inside this package."""


def unseen(register: str) -> Unreadable:
    """Return the error for a register whose value the kernel does not show to probes."""
    return Unreadable(f"a floating-point or vector register ({register}), which the kernel does not show")


def number(text: str, reason: str) -> int:
    """Return the integer that `text` spells in decimal or hex within 64 bits; else raise Unreadable(reason)."""
    spelled = _NUMBER.fullmatch(text)
    if spelled is None:
        raise Unreadable(reason)
    value = int(text, 16 if spelled[1][1:2] in ("x", "X") else 10)
    if not -(1 << 63) <= value < 1 << 64:
        raise Unreadable("number beyond 64 bits")
    return value


def displacement(text: str, resolve_symbol: SymbolResolver) -> tuple[int, bool]:
    """Return the sum of numbers and at most one symbol that `text` spells ("" is 0), and whether it has a symbol.

    `symbol@GOTOFF` is a distance from the global offset table, and so no symbol in this sense.
    """
    if not text:
        return 0, False
    if _NUMBER.fullmatch(text):  # most displacements are plain numbers
        return number(text, "not a number"), False
    total, position, symbolic = 0, 0, False
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None or (position > 0 and not term[1]):
            raise Unreadable("not an operand of this architecture")
        if term[2][0].isdigit():
            value = number(term[2], "not a number")
        else:
            if symbolic or term[1] == "-":
                raise Unreadable("a difference or sum of symbols")
            name = term[2].removesuffix("@GOTOFF")
            value = _address(name, resolve_symbol)
            if name != term[2]:
                value -= _address("_GLOBAL_OFFSET_TABLE_", resolve_symbol)
            else:
                symbolic = True
        total += -value if term[1] == "-" else value
        position = term.end()
    return total, symbolic


def _address(name: str, resolve_symbol: SymbolResolver) -> int:
    address = resolve_symbol(name)
    if address is None:
        raise Unreadable(f"the file does not say where {name} is")
    return address


def signed(value: int) -> int:
    """Return an address or distance as a signed number of 64 bits, at which addresses wrap."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def cut(value: int, size: int, is_signed: bool) -> int:
    """Return a number as `size` bytes hold it."""
    value &= (1 << 8 * size) - 1
    return value - (1 << 8 * size) if is_signed and value >> (8 * size - 1) else value
