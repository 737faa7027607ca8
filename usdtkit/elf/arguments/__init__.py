"""A note's argument string → `Operand`s: one module an architecture, chosen by the file's machine.

Read by `usdtkit.elf.notes`. An operand that cannot be read keeps its place and says why, so that no argument ever
takes the number of another.
"""

from __future__ import annotations

import re
from dataclasses import replace

from usdtkit.elf.arguments import aarch64, x86_64
from usdtkit.elf.arguments.common import SymbolResolver, Unreadable
from usdtkit.model import Operand

_GRAMMARS = {"x86_64": x86_64.operand, "aarch64": aarch64.operand}
_SIZE = re.compile(r"(-?)([0-9]{1,4})(f?)@", re.ASCII)
# A size begins an operand even inside a bracket that was never closed.
_AT_SIZE = re.compile(r"\s+(?=-?[0-9]{1,4}f?@)", re.ASCII)


def parse(text: str, machine: str, *, site_address: int, resolve_symbol: SymbolResolver) -> tuple[Operand, ...]:
    """The operands of one site in order.

    `machine` is `Image.machine`, `site_address` the site's virtual address. A constant's `value` comes already cut to
    its size and sign. A register's size is at most the width of the register that was named.
    """
    return tuple(_operand(piece, machine, site_address, resolve_symbol) for piece in split(text))


def split(text: str) -> list[str]:
    """Cut at white space outside of brackets: aarch64 writes `8@[x0, 8]`."""
    pieces: list[str] = []
    for part in _AT_SIZE.split(text):
        start, depth = 0, 0
        for position, character in enumerate(part):
            if character in "([":
                depth += 1
            elif character in ")]":
                depth = max(depth - 1, 0)
            elif character.isspace() and depth == 0:
                pieces.append(part[start:position])
                start = position
        pieces.append(part[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def _operand(text: str, machine: str, site_address: int, resolve_symbol: SymbolResolver) -> Operand:
    size, signed, is_float, body = 0, False, False, text
    if prefix := _SIZE.match(text):
        size, signed, is_float, body = int(prefix[2]), bool(prefix[1]), bool(prefix[3]), text[prefix.end() :]
    try:
        if prefix and size not in (1, 2, 4, 8):
            raise Unreadable(f"values of {size} bytes are not supported")
        if is_float and size != 8:
            raise Unreadable(f"floating-point values of {size} bytes are not supported")
        if machine not in _GRAMMARS:
            raise Unreadable(f"no operand grammar for {machine}")
        found = _GRAMMARS[machine](body, site_address, resolve_symbol)
    except Unreadable as reason:
        kept = size if size in (1, 2, 4, 8) else 8
        return Operand(text, "unreadable", size=kept, signed=signed, reason=str(reason))
    if not prefix:
        signed = found.kind == "constant" and found.value < 0
    size = size or found.size
    if found.kind == "register":
        size = min(size, found.size)
    value = _cut(found.value, size, signed) if found.kind == "constant" else found.value
    return replace(found, text=text, size=size, signed=signed, value=value)


def _cut(value: int, size: int, signed: bool) -> int:
    value &= (1 << 8 * size) - 1
    return value - (1 << 8 * size) if signed and value >> (8 * size - 1) else value
