"""riscv64 operands: `5`, `a0`, `zero`, `8(sp)`, `(a0)`.

Used by `usdtkit.elf.arguments`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Grammar, Place, SymbolResolver, Unreadable, number, unseen
from usdtkit.model import Operand

# By number, as the ABI calls them.
_ABI = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{n}" for n in range(8)),
    *(f"s{n}" for n in range(2, 12)),
    *(f"t{n}" for n in range(3, 7)),
)
_REGISTERS = {**{name: name for name in _ABI}, **{f"x{n}": name for n, name in enumerate(_ABI)}, "fp": "s0"}
_MEMORY = re.compile(r"(.*)\(\s*(\w+)\s*\)", re.ASCII)
_VECTOR = re.compile(r"f[ats]?[0-9]{1,2}|v[0-9]{1,2}", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if (register := _REGISTERS.get(body)) == "zero":
        return Place("constant")
    if register:
        return Place("register", base=register)
    if memory := _MEMORY.fullmatch(body):
        base = _REGISTERS.get(memory[2])
        if base is None:
            raise Unreadable(f"no register for an address: {memory[2]}")
        reason = "an offset that is only known to the linker" if memory[1].startswith("%") else "no such offset"
        value = number(memory[1] or "0", reason)
        return Place("memory", base=None if base == "zero" else base, value=value)
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    return Place("constant", value=number(body, "not an operand of this architecture"))


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return str(operand.value)
    return str(operand.base) if operand.kind == "register" else f"{operand.value}({operand.base or 'zero'})"


GRAMMAR = Grammar(_parse, _render, 8)
