"""loongarch64 operands: `5`, `$r4` or `$a0`, `[$r4]`, `$r22,-24` or `[$r22, -24]`, `[$r4, $r5]`.

Used by `usdtkit.elf.arguments`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Grammar, Place, SymbolResolver, number, unseen
from usdtkit.model import Operand

# By number, as the ABI calls them; register 21 belongs to the kernel.
_ABI = (
    *("zero", "ra", "tp", "sp"),
    *(f"a{n}" for n in range(8)),
    *(f"t{n}" for n in range(9)),
    *("r21", "fp"),
    *(f"s{n}" for n in range(9)),
)
_REGISTERS = {
    **{f"{dollar}{name}": f"r{n}" for n, name in enumerate(_ABI) for dollar in ("", "$")},
    **{f"{dollar}r{n}": f"r{n}" for n in range(32) for dollar in ("", "$")},
    "$s9": "r22",
}
_PAIR = re.compile(r"(\[\s*)?([$\w]+)\s*(?:,\s*([$\w+-]+)\s*)?(?(1)\])", re.ASCII)
_VECTOR = re.compile(r"\$?(f[ats]?|vr|xr)[0-9]{1,2}", re.ASCII)


def _parse(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    if (register := _REGISTERS.get(body)) == "r0":
        return Place("constant")
    if register:
        return Place("register", base=register)
    pair = _PAIR.fullmatch(body)
    if pair and (pair[1] or pair[3]) and pair[2] in _REGISTERS:
        return _memory(_REGISTERS[pair[2]], pair[3] or "0")
    if _VECTOR.fullmatch(body):
        raise unseen(body)
    return Place("constant", value=number(body, "not an operand of this architecture"))


def _memory(first: str, second: str) -> Place:
    base = None if first == "r0" else first
    if second not in _REGISTERS:
        return Place("memory", base=base, value=number(second, f"no such offset: {second}"))
    index = None if _REGISTERS[second] == "r0" else _REGISTERS[second]
    return Place("memory", base=base or index, index_register=index if base else None)


def _render(operand: Operand) -> str:
    if operand.kind == "constant":
        return str(operand.value)
    base = operand.base or "r0"
    if operand.kind == "register":
        return f"${base}"
    return f"[${base}, {f'${operand.index}' if operand.index else operand.value}]"


GRAMMAR = Grammar(_parse, _render, 8)
