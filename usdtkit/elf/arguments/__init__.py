"""A note's argument string → `Operand`s and back: one module an architecture, chosen by the file's machine.

Used by `usdtkit.elf.notes`. An operand that cannot be read keeps its position and says why it cannot, so that every
argument keeps its number.
"""

from __future__ import annotations

import importlib
import re
from functools import cache, lru_cache

from usdtkit.elf.arguments.common import Grammar, SymbolResolver, Unreadable, cut
from usdtkit.model import Operand

MACHINES = ("x86_64", "i386", "aarch64", "arm", "ppc64le", "s390x", "riscv64", "loongarch64")
"""The machines whose operands are understood, each by the module of its name."""

_SIZE = re.compile(r"(-?)([0-9]{1,4})(f?)@", re.ASCII)
_SIZES = (1, 2, 4, 8)
_CACHED_LENGTH = 512
# A size begins an operand even inside a bracket that was never closed.
_AT_SIZE = re.compile(r"\s+(?=-?[0-9]{1,4}f?@)", re.ASCII)


_HAS_INNER_SPACE = re.compile(r"\[|[(,]\s|\s[),]")


def parse(text: str, machine: str, *, site_address: int, resolve_symbol: SymbolResolver) -> tuple[Operand, ...]:
    """Return the operands of one site in order.

    `machine` is `Image.machine`, `site_address` the site's virtual address. The `value` of a constant is already cut to
    its size and sign. The size of a register is at most the width of the register that the text names.
    """
    if (operands := parse_anywhere(text, machine)) is not None:
        return operands
    return tuple(_operand(piece, machine, site_address, resolve_symbol) for piece in split(text))


def parse_anywhere(text: str, machine: str) -> tuple[Operand, ...] | None:
    """Return the operands if they mean the same at every site and in every file, else None."""
    return _all_anywhere(text, machine) if len(text) <= _CACHED_LENGTH else None


class _NeedsSite(Exception):
    """The text names a symbol, so that its meaning depends on the file and the site."""


# Sites of a file share texts, and texts share operands: the 531 sites of a virtual machine for Java have 128 texts, and
# these have 88 operands.
@lru_cache(maxsize=1024)
def _all_anywhere(text: str, machine: str) -> tuple[Operand, ...] | None:
    pieces = split(text)
    operands = [operand for piece in pieces if (operand := _anywhere(piece, machine)) is not None]
    return tuple(operands) if len(operands) == len(pieces) else None


@lru_cache(maxsize=1024)
def _anywhere(text: str, machine: str) -> Operand | None:
    """The operand, or None if its meaning depends on the site or the file."""
    grammar = _grammar(machine)
    if grammar is not None and (operand := grammar.common(text)) is not None:
        return operand
    try:
        return _operand(text, machine, 0, _refuse)
    except _NeedsSite:
        return None


def _refuse(name: str) -> int:
    raise _NeedsSite


def render(operand: Operand, machine: str) -> str:
    """Return a text that `parse` reads as the same place or value; for an unreadable operand its own text.

    Compilers have several spellings for one place. `operand.text` is the one in the file.
    """
    grammar = _grammar(machine)
    if operand.kind == "unreadable" or grammar is None:
        return operand.text
    sign, kind = "-" if operand.signed else "", "f" if operand.floating else ""
    return f"{sign}{operand.size}{kind}@{grammar.render(operand)}"


def split(text: str) -> list[str]:
    """Split at white space, but not inside of brackets or after a comma: aarch64 writes `8@[x0, 8]`."""
    if not _HAS_INNER_SPACE.search(text):
        return text.split()
    pieces: list[str] = []
    for part in _AT_SIZE.split(text):
        start, depth, before = 0, 0, ""
        for position, character in enumerate(part):
            if character in "([":
                depth += 1
            elif character in ")]":
                depth = max(depth - 1, 0)
            elif character.isspace():
                if depth == 0 and before != ",":
                    pieces.append(part[start:position])
                    start = position
                continue
            before = character
        pieces.append(part[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


@cache
def _grammar(machine: str) -> Grammar | None:
    if machine not in MACHINES:
        return None
    grammar: Grammar = importlib.import_module(f"{__name__}.{machine}").GRAMMAR
    return grammar


def _operand(text: str, machine: str, site_address: int, resolve_symbol: SymbolResolver) -> Operand:
    grammar = _grammar(machine)
    size, signed, floating, body = 0, False, False, text
    prefix = _SIZE.match(text)
    if prefix is not None:
        sign, digits, kind = prefix.groups()
        size, signed, floating, body = int(digits), sign == "-", kind == "f", text[prefix.end() :]
    try:
        if prefix is not None and size not in _SIZES:
            raise Unreadable(f"values of {size} bytes are not supported")
        if floating and size not in (4, 8):
            raise Unreadable(f"floating-point values of {size} bytes are not supported")
        if grammar is None:
            raise Unreadable(f"no operand grammar for {machine}")
        place = grammar.parse(
            body, site_address, _with_dot(resolve_symbol, site_address) if "." in body else resolve_symbol
        )
        if place.kind == "register" and size > place.size == grammar.word:
            raise Unreadable(f"a value of {size} bytes in two registers, of which only {body} is named")
        if floating and place.kind == "register" and size > place.size:
            raise Unreadable(f"a floating-point value of {size} bytes in a register of {place.size}")
    except Unreadable as reason:
        kept = size if size in _SIZES else 8
        return Operand(text, "unreadable", size=kept, signed=signed, reason=str(reason), floating=floating)
    where, whole, value, base, index, scale, shift = place
    if where == "constant":
        if prefix is None:
            signed = value < 0
        size = size or whole
        value = cut(value, size, signed)
    elif where == "register":
        size = min(size or whole, whole)
    return Operand(text, where, size or whole, signed, value, base, index, scale, "", shift, floating)


def _with_dot(resolve_symbol: SymbolResolver, site_address: int) -> SymbolResolver:
    """The resolver that also knows `.`, which is the site itself, as for an assembler."""
    return lambda name: site_address if name == "." else resolve_symbol(name)
