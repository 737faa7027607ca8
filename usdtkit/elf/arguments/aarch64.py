"""aarch64 operands: `5`, `x0`, `w1`, `sp`, `xzr`, `[x0]`, `[sp, 16]`, `[x0, x1, lsl 3]`.

Used by `usdtkit.elf.arguments`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Grammar, Place, SymbolResolver, Unreadable, number, unseen
from usdtkit.model import Operand

_REGISTERS: dict[str, tuple[str, int]] = {
    **{f"x{n}": (f"x{n}", 8) for n in range(31)},
    **{f"w{n}": (f"x{n}", 4) for n in range(31)},
    "sp": ("sp", 8),
    "wsp": ("sp", 4),
    "fp": ("x29", 8),
    "lr": ("x30", 8),
}
_MEMORY = re.compile(r"\[\s*(\w+)\s*(?:,\s*([^,\]]+?)\s*)?(?:,\s*(\w+)\s*#?\s*([0-9])\s*)?\]", re.ASCII)
_VECTOR = re.compile(r"[vqdshb][0-9]{1,2}(\..*)?", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if body in ("xzr", "wzr"):
        return Place("constant", size=8 if body == "xzr" else 4)
    if body in _REGISTERS:
        name, size = _REGISTERS[body]
        return Place("register", size=size, base=name)
    if body.startswith("["):
        memory = _MEMORY.fullmatch(body)
        if memory is None:
            raise Unreadable("not a memory operand of this architecture")
        return _memory(memory[1], memory[2] or "0", memory[3], memory[4])
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    return Place("constant", value=number(body.removeprefix("#"), "not an operand of this architecture"))


def _memory(base: str, offset: str, shift: str | None, amount: str | None) -> Place:
    if _REGISTERS.get(base, ("", 0))[1] != 8:
        raise Unreadable(f"no register for an address: {base}")
    base = _REGISTERS[base][0]
    if offset not in _REGISTERS:
        if shift is not None:
            raise Unreadable("not a memory operand of this architecture")
        reason = "an offset that is only known to the linker" if offset.startswith(":") else f"no such offset: {offset}"
        return Place("memory", base=base, value=number(offset.removeprefix("#"), reason))
    if _REGISTERS[offset][1] != 8 or shift not in (None, "lsl") or int(amount or 0) > 3:
        raise Unreadable("an extended or shifted index")
    return Place("memory", base=base, index_register=_REGISTERS[offset][0], scale=1 << int(amount or 0))


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return str(operand.value)
    if operand.kind == "register":
        return str(operand.base)
    if operand.index:
        shift = f", lsl {operand.scale.bit_length() - 1}" if operand.scale > 1 else ""
        return f"[{operand.base}, {operand.index}{shift}]"
    return f"[{operand.base}, {operand.value}]" if operand.value else f"[{operand.base}]"


GRAMMAR = Grammar(_parse, _render, 8)
