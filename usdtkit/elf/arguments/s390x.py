"""s390x operands: `5`, `%r2`, `160(%r15)`, `8(%r2,%r3)` (index, then base), `symbol+8`.

Used by `usdtkit.elf.arguments`, which deals with the size in front. In an address, register 0 means the number 0.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import (
    Grammar,
    Place,
    SymbolResolver,
    Unreadable,
    displacement,
    number,
    signed,
    unseen,
)
from usdtkit.model import Operand

_REGISTER = re.compile(r"%r([0-9]{1,2})", re.ASCII)
_MEMORY = re.compile(r"([^()%\s]*)\(\s*(?:(%\w+)\s*,\s*)?(%\w+)\s*\)", re.ASCII)
_VECTOR = re.compile(r"%[fv][0-9]{1,2}", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if memory := _MEMORY.fullmatch(body):
        value = number(memory[1] or "0", f"no such offset: {memory[1]}")
        index, base = (None if name in (None, "%r0") else _register(name) for name in (memory[2], memory[3]))
        return Place("memory", base=base or index, index_register=index if base else None, value=value)
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    if body.startswith("%"):
        return Place("register", base=_register(body))
    value, symbolic = displacement(body or "?", resolve_symbol)
    if symbolic:
        return Place("memory", base="pc", value=signed(value - site_address))
    return Place("constant", value=number(body, "not an operand of this architecture"))


def _register(name: str) -> str:
    match = _REGISTER.fullmatch(name)
    if match is None or int(match[1]) > 15:
        raise Unreadable(f"no such register: {name}")
    return f"r{int(match[1])}"


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return str(operand.value)
    if operand.kind == "register":
        return f"%{operand.base}"
    if operand.base == "pc":
        return f".{operand.value:+d}"
    index = f"%{operand.index}," if operand.index else ""
    return f"{operand.value}({index}%{operand.base or 'r0'})"


GRAMMAR = Grammar(_parse, _render, 8)
