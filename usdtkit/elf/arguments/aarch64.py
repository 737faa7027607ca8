"""aarch64 operands: `5`, `x0`, `w1`, `sp`, `xzr`, `[x0]`, `[sp, 16]`, `[x0, x1, lsl 3]`.

Called by `usdtkit.elf.arguments.parse`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import SymbolResolver, Unreadable, number
from usdtkit.model import Operand

REGISTERS: dict[str, tuple[str, int]] = {
    **{f"x{n}": (f"x{n}", 8) for n in range(31)},
    **{f"w{n}": (f"x{n}", 4) for n in range(31)},
    "sp": ("sp", 8),
    "wsp": ("sp", 4),
    "fp": ("x29", 8),
    "lr": ("x30", 8),
}
"""Name → (full-width name, size in bytes)."""

_MEMORY = re.compile(r"\[\s*(\w+)\s*(?:,\s*([^,\]]+?)\s*)?(?:,\s*(\w+)\s*#?\s*([0-9])\s*)?\]", re.ASCII)
_VECTOR = re.compile(r"[vqdshb][0-9]{1,2}(\..*)?", re.ASCII)


def operand(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Operand:
    """The operand without its size; `size` is that of the register, else 8. Raises Unreadable."""
    if body in ("xzr", "wzr"):
        return Operand(body, "constant", size=8 if body == "xzr" else 4)
    if body in REGISTERS:
        name, size = REGISTERS[body]
        return Operand(body, "register", size=size, base=name)
    if body.startswith("["):
        memory = _MEMORY.fullmatch(body)
        if memory is None:
            raise Unreadable("not a memory operand of this architecture")
        return _memory(body, memory[1], memory[2] or "0", memory[3], memory[4])
    if _VECTOR.fullmatch(body):
        raise Unreadable(f"a floating-point or vector register ({body}), which the kernel does not show")
    return Operand(body, "constant", value=number(body.removeprefix("#"), "not an operand of this architecture"))


def _memory(body: str, base: str, offset: str, shift: str | None, amount: str | None) -> Operand:
    if REGISTERS.get(base, ("", 0))[1] != 8:
        raise Unreadable(f"no register for an address: {base}")
    base = REGISTERS[base][0]
    if offset not in REGISTERS:
        if shift is not None:
            raise Unreadable("not a memory operand of this architecture")
        reason = "an offset that is only known to the linker" if offset.startswith(":") else f"no such offset: {offset}"
        return Operand(body, "memory", base=base, value=number(offset.removeprefix("#"), reason))
    if REGISTERS[offset][1] != 8 or shift not in (None, "lsl") or int(amount or 0) > 3:
        raise Unreadable("an extended or shifted index")
    return Operand(body, "memory", base=base, index=REGISTERS[offset][0], scale=1 << int(amount or 0))
