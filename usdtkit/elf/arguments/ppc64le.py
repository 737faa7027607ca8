"""64-bit PowerPC operands: `i5`, `3` or `%r3`, `8(1)`, `9,10` (the sum of two registers).

Used by `usdtkit.elf.arguments`, which deals with the size in front. The assembler's bare number is a register, which is
why constants carry an `i`. In an address, register 0 as the first one means the number 0.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Grammar, Place, SymbolResolver, Unreadable, number, unseen
from usdtkit.model import Operand

_REGISTER = r"(?:%?r)?([0-9]{1,2})"
_ONE = re.compile(_REGISTER, re.ASCII)
_OFFSET = re.compile(rf"(.*)\(\s*{_REGISTER}\s*\)", re.ASCII)
_SUM = re.compile(rf"{_REGISTER}\s*,\s*{_REGISTER}", re.ASCII)
_VECTOR = re.compile(r"%?(f|v|vs)[0-9]{1,2}", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if body.startswith("i"):
        return Place("constant", value=number(body[1:], "a constant that is only known to the linker"))
    if register := _ONE.fullmatch(body):
        return Place("register", base=_register(register[1]))
    if memory := _OFFSET.fullmatch(body):
        base = None if int(memory[2]) == 0 else _register(memory[2])
        return Place("memory", base=base, value=number(memory[1] or "0", f"no such offset: {memory[1]}"))
    if both := _SUM.fullmatch(body):
        first, second = None if int(both[1]) == 0 else _register(both[1]), _register(both[2])
        return Place("memory", base=first or second, index_register=second if first else None)
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    raise Unreadable("not an operand of this architecture")


def _register(digits: str) -> str:
    if int(digits) > 31:
        raise Unreadable(f"no such register: {digits}")
    return f"r{int(digits)}"


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return f"i{operand.value}"
    base = (operand.base or "r0")[1:]
    if operand.kind == "register":
        return base
    if operand.index:
        return f"{base},{operand.index[1:]}"
    # only the sum reaches what register 0 points to
    return f"0,{base}" if operand.base == "r0" else f"{operand.value}({base})"


GRAMMAR = Grammar(_parse, _render, 8)
