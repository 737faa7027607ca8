"""32-bit Arm operands: `#5`, `r0`, `sp`, `[r0]`, `[fp, #-8]`, `[r3, r2, lsl #2]`.

Used by `usdtkit.elf.arguments`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Grammar, Place, SymbolResolver, Unreadable, number, unseen
from usdtkit.model import Operand

_NAMES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12", "sp": "r13", "lr": "r14", "pc": "r15"}
_REGISTERS = {**{f"r{n}": f"r{n}" for n in range(16)}, **_NAMES}
_MEMORY = re.compile(
    r"\[\s*(?P<base>\w+)\s*(?:,\s*(?P<sign>-?)(?P<index>[a-z]\w*)\s*(?:,\s*lsl\s*#(?P<shift>[0-3])\s*)?"
    r"|,\s*#(?P<offset>[^\],\s]+)\s*)?\]",
    re.ASCII,
)
_SYMBOL = re.compile(r"[A-Za-z_.][\w.$]*([+-][0-9]+)?", re.ASCII)
_VECTOR = re.compile(r"[sdq][0-9]{1,2}", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if body in _REGISTERS:
        return Place("register", size=4, base=_REGISTERS[body])
    if body.startswith("["):
        return _memory(body)
    if body.startswith("#"):
        value = number(body[1:], "a constant that is only known to the linker")
        return Place("constant", size=4, value=value)
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    if _SYMBOL.fullmatch(body):  # a constant here, and not memory as elsewhere
        raise Unreadable("an address that is only known where the file is loaded")
    raise Unreadable("not an operand of this architecture")


def _memory(body: str) -> Place:
    memory = _MEMORY.fullmatch(body)
    if memory is None or memory["sign"]:
        raise Unreadable("not a memory operand that is supported")
    base = _REGISTERS.get(memory["base"])
    index = _REGISTERS.get(memory["index"]) if memory["index"] else None
    if base is None or base == "r15" or (memory["index"] and index is None):
        raise Unreadable("no register for an address")
    if index:
        return Place("memory", size=4, base=base, index_register=index, scale=1 << int(memory["shift"] or 0))
    return Place("memory", size=4, base=base, value=number(memory["offset"] or "0", "no such offset"))


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return f"#{operand.value}"
    if operand.kind == "register":
        return str(operand.base)
    if operand.index:
        shift = f", lsl #{operand.scale.bit_length() - 1}" if operand.scale > 1 else ""
        return f"[{operand.base}, {operand.index}{shift}]"
    return f"[{operand.base}, #{operand.value}]" if operand.value else f"[{operand.base}]"


GRAMMAR = Grammar(_parse, _render, 4)
