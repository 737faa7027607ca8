"""AT&T syntax, which x86-64 and i386 share: `$c`, `%reg`, `disp(%base,%index,scale)`, `symbol+disp(%rip)`.

Called by `x86_64` and `i386`, which bring their registers.
"""

from __future__ import annotations

import re

from usdtkit.elf.arguments.common import Place, SymbolResolver, Unreadable, cut, displacement, number, signed, unseen
from usdtkit.model import Operand
from usdtkit.records import NamedTuple

_MEMORY = re.compile(
    # displacement, base, index, scale
    r"([^()%\s]*)\(\s*(?:%(\w+))?\s*(?:,\s*%(\w+)\s*(?:,\s*(\w*)\s*)?)?\)",
    re.ASCII,
)
# What most operands are: a register, memory at a distance from one, or a constant.
_COMMON = re.compile(
    # sign, size; register; displacement, base; constant
    r"(-?)([1248])@(?:%([a-z0-9]+)|(-?[0-9]{1,9})?\(%([a-z0-9]+)\)|\$(-?[0-9]{1,18}))"
)
_VECTOR = re.compile(r"[xyz]?mm[0-9]{1,2}", re.ASCII)


class Register(NamedTuple):
    """The part of the register `full` that a name means: `size` bytes, from bit `shift` on."""

    full: str
    size: int
    shift: int = 0


class Syntax(NamedTuple):
    """The registers by name, what the program counter and the stack pointer are called, and the bytes of a pointer."""

    registers: dict[str, Register]
    counter: str
    stack: str
    word: int


def parse(syntax: Syntax, body: str, site_address: int, resolve_symbol: SymbolResolver) -> Place:
    """See `Grammar.parse`."""
    if body.startswith("$"):
        value = number(body[1:], "a constant that is only known to the linker")
        return Place("constant", size=syntax.word, value=value)
    if body.startswith("%"):
        if ":" in body:
            raise Unreadable(f"memory in the segment {body.partition(':')[0]}, whose start the kernel does not show")
        register = _register(syntax, body[1:])
        return Place("register", register.size, base=register.full, shift=register.shift)
    if memory := _MEMORY.fullmatch(body):
        return _memory(syntax, memory, site_address, resolve_symbol)
    if not body:
        raise Unreadable("not an operand of this architecture")
    value, symbolic = displacement(body, resolve_symbol)
    if symbolic:  # a symbol's distance from the site holds wherever the file is loaded
        return Place("memory", size=syntax.word, base=syntax.counter, value=signed(value - site_address))
    return Place("memory", size=syntax.word, value=signed(value))


def common(syntax: Syntax, text: str) -> Operand | None:
    """Return an operand of a form that most operands have, quicker than `parse` does; None if it has another form."""
    match = _COMMON.fullmatch(text)
    if match is None:
        return None
    minus, digit, name, displaced, base, constant = match.groups()
    size, is_signed = int(digit), minus == "-"
    if constant is not None:
        value = cut(int(constant), size, is_signed)
        return Operand(text, "constant", size, is_signed, value, None, None, 1, "", 0, False)
    register = syntax.registers.get(base or name)
    if register is None:
        return None
    full, width, shift = register
    if base is not None:
        if width != syntax.word:
            return None
        return Operand(text, "memory", size, is_signed, int(displaced or 0), full, None, 1, "", 0, False)
    if size > syntax.word:
        return None
    return Operand(text, "register", min(size, width), is_signed, 0, full, None, 1, "", shift, False)


def render(syntax: Syntax, operand: Operand) -> str:
    """See `Grammar.render`."""
    if operand.kind == "constant":
        return f"${operand.value}"
    if operand.kind == "register":
        parts = [
            (register.size, name)
            for name, register in syntax.registers.items()
            if register.full == operand.base and register.shift == operand.shift and register.size >= operand.size
        ]
        return f"%{min(parts)[1]}"
    if operand.base is None and operand.index is None:
        return str(operand.value)
    base = f"%{operand.base}" if operand.base else ""
    index = f",%{operand.index},{operand.scale}" if operand.index else ""
    return f"{operand.value or ''}({base}{index})"


def _memory(syntax: Syntax, memory: re.Match[str], site_address: int, resolve_symbol: SymbolResolver) -> Place:
    displaced, base_name, index_name, scale_text = memory.groups()
    value, symbolic = displacement(displaced, resolve_symbol)
    if base_name == syntax.counter:
        if index_name:
            raise Unreadable(f"%{syntax.counter} takes no index")
        value = signed(value - site_address if symbolic else value)
        return Place("memory", size=syntax.word, base=syntax.counter, value=value)
    if scale_text not in (None, "", "1", "2", "4", "8"):
        raise Unreadable(f"scale {scale_text}")
    base = _address_register(syntax, base_name) if base_name else None
    index = _address_register(syntax, index_name) if index_name else None
    if index == syntax.stack or (base is None and index is None):
        raise Unreadable("not a memory operand of this architecture")
    return Place("memory", syntax.word, signed(value), base, index, int(scale_text or 1))


def _register(syntax: Syntax, name: str) -> Register:
    if name in syntax.registers:
        return syntax.registers[name]
    if _VECTOR.fullmatch(name) or name.startswith("st"):
        raise unseen(f"%{name}")
    raise Unreadable(f"no such register: %{name}")


def _address_register(syntax: Syntax, name: str) -> str:
    register = _register(syntax, name)
    if register.size != syntax.word:
        raise Unreadable(f"an address of {8 * register.size} bits in %{name}")
    return register.full
