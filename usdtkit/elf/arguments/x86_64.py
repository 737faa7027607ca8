"""x86-64 operands in AT&T syntax: `$c`, `%reg`, `disp(%base,%index,scale)`, `symbol+disp(%rip)`.

Called by `usdtkit.elf.arguments.parse`, which deals with the size in front.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import SymbolResolver, Unreadable, number
from usdtkit.model import Operand


def _registers() -> dict[str, tuple[str, int]]:
    table = {}
    for letter in "abcd":
        for name, size in ((f"r{letter}x", 8), (f"e{letter}x", 4), (f"{letter}x", 2), (f"{letter}l", 1)):
            table[name] = (f"r{letter}x", size)
    for short in ("si", "di", "bp", "sp"):
        for name, size in ((f"r{short}", 8), (f"e{short}", 4), (short, 2), (f"{short}l", 1)):
            table[name] = (f"r{short}", size)
    for n in range(8, 16):
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            table[f"r{n}{suffix}"] = (f"r{n}", size)
    return table


REGISTERS = _registers()
"""Name → (full-width name, size in bytes)."""

_MEMORY = re.compile(
    r"(?P<displacement>[^()%\s]*)\(\s*(?:%(?P<base>\w+))?\s*(?:,\s*%(?P<index>\w+)\s*(?:,\s*(?P<scale>\w*)\s*)?)?\)",
    re.ASCII,
)
_TERM = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|[A-Za-z_.][\w.$@]*)", re.ASCII)


def operand(body: str, site_address: int, resolve_symbol: SymbolResolver) -> Operand:
    """The operand without its size; `size` is that of the register, else 8. Raises Unreadable."""
    if body.startswith("$"):
        return Operand(body, "constant", value=number(body[1:], "a constant that is only known to the linker"))
    if body.startswith("%"):
        if ":" in body:
            raise Unreadable(f"memory in the segment {body.partition(':')[0]}")
        name, size = _register(body[1:])
        return Operand(body, "register", size=size, base=name)
    if memory := _MEMORY.fullmatch(body):
        return _memory(body, memory, site_address, resolve_symbol)
    if not body:
        raise Unreadable("not an operand of this architecture")
    displacement, symbolic = _displacement(body, resolve_symbol)
    if symbolic:  # a symbol's distance from the site holds wherever the file is loaded
        return Operand(body, "memory", base="rip", value=_signed(displacement - site_address))
    return Operand(body, "memory", value=displacement)


def _memory(body: str, memory: re.Match[str], site_address: int, resolve_symbol: SymbolResolver) -> Operand:
    displacement, symbolic = _displacement(memory["displacement"], resolve_symbol)
    if memory["base"] == "rip":
        if memory["index"]:
            raise Unreadable("%rip takes no index")
        return Operand(
            body, "memory", base="rip", value=_signed(displacement - site_address if symbolic else displacement)
        )
    scale = int(memory["scale"]) if memory["scale"] in ("1", "2", "4", "8") else 1 if not memory["scale"] else 0
    if scale == 0:
        raise Unreadable(f"scale {memory['scale']}")
    base = _address_register(memory["base"]) if memory["base"] else None
    index = _address_register(memory["index"]) if memory["index"] else None
    if index == "rsp" or (base is None and index is None):
        raise Unreadable("not a memory operand of this architecture")
    return Operand(body, "memory", base=base, index=index, scale=scale, value=_signed(displacement))


def _register(name: str) -> tuple[str, int]:
    if name in REGISTERS:
        return REGISTERS[name]
    if name in ("ah", "bh", "ch", "dh"):
        raise Unreadable(f"the second byte of a register (%{name})")
    if re.fullmatch(r"[xyz]?mm[0-9]{1,2}", name):
        raise Unreadable(f"a vector register (%{name}), which the kernel does not show")
    raise Unreadable(f"no such register: %{name}")


def _address_register(name: str) -> str:
    full, size = _register(name)
    if size != 8:
        raise Unreadable(f"an address of {8 * size} bits in %{name}")
    return full


def _displacement(text: str, resolve_symbol: SymbolResolver) -> tuple[int, bool]:
    """The sum that `text` spells, and whether a symbol is in it."""
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
            resolved = resolve_symbol(term[2])
            if resolved is None:
                raise Unreadable(f"the file does not say where {term[2]} is")
            value, symbolic = resolved, True
        total += -value if term[1] == "-" else value
        position = term.end()
    return total, symbolic


def _signed(value: int) -> int:
    """Addresses wrap at 64 bits: the same place, spelt as a signed 64-bit distance."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
