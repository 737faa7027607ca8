"""What the operand grammars share: their interface, the reason why an operand cannot be read, and bounded numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from usdtkit.model import Operand
from usdtkit.records import NamedTuple

SymbolResolver = Callable[[str], int | None]
"""Name → virtual address in the same file, or None where it is not known or not unique.

As for an assembler, `.` is the site's own address."""

_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", re.ASCII)
_TERM = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|[A-Za-z_.][\w.$@]*)", re.ASCII)


class Place(NamedTuple):
    """Where a value is, as `Operand` has it, before its size and sign are known."""

    kind: Literal["constant", "register", "memory"]
    size: int = 8
    value: int = 0
    base: str | None = None
    index_register: str | None = None
    scale: int = 1
    shift: int = 0


class Grammar(NamedTuple):
    """The operands of one architecture.

    `parse(body, site_address, resolve_symbol)` reads an operand without its size; the size that it returns is that of
    the register, else `word`, the bytes of a pointer. It raises Unreadable. `render(operand)` is the reverse.
    """

    parse: Callable[[str, int, SymbolResolver], Place]
    render: Callable[[Operand], str]
    word: int


class Unreadable(Exception):
    """The operand is well placed but no value can be read from it; the text says why. It never leaves this package."""


def unseen(register: str) -> Unreadable:
    """For a register that no probe is shown."""
    return Unreadable(f"a floating-point or vector register ({register}), which the kernel does not show")


def number(text: str, reason: str) -> int:
    """The integer that `text` spells in decimal or hex, within 64 bits; else Unreadable(reason)."""
    spelled = _NUMBER.fullmatch(text)
    if spelled is None:
        raise Unreadable(reason)
    value = int(text, 16 if spelled[1][1:2] in ("x", "X") else 10)
    if not -(1 << 63) <= value < 1 << 64:
        raise Unreadable("number beyond 64 bits")
    return value


def displacement(text: str, resolve_symbol: SymbolResolver) -> tuple[int, bool]:
    """The sum of numbers and at most one symbol that `text` spells ("" is 0), and whether a symbol is in it.

    `symbol@GOTOFF` is a distance from the global offset table, and so no symbol in this sense.
    """
    if not text:
        return 0, False
    if _NUMBER.fullmatch(text):  # as most are
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
    """Addresses wrap at 64 bits: the same place, spelt as a signed 64-bit distance."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
