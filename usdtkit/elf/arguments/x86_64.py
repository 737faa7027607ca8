"""x86-64 operands: the registers, for the syntax of `att`. Used by `usdtkit.elf.arguments`."""

from __future__ import annotations

from functools import partial

from usdtkit.elf.arguments import att
from usdtkit.elf.arguments.att import Register
from usdtkit.elf.arguments.common import Grammar


def _registers() -> dict[str, Register]:
    table = {}
    for letter in "abcd":
        full = f"r{letter}x"
        for name, size in ((full, 8), (f"e{letter}x", 4), (f"{letter}x", 2), (f"{letter}l", 1)):
            table[name] = Register(full, size)
        table[f"{letter}h"] = Register(full, 1, 8)
    for short in ("si", "di", "bp", "sp"):
        for name, size in ((f"r{short}", 8), (f"e{short}", 4), (short, 2), (f"{short}l", 1)):
            table[name] = Register(f"r{short}", size)
    for n in range(8, 16):
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            table[f"r{n}{suffix}"] = Register(f"r{n}", size)
    return table


_SYNTAX = att.Syntax(_registers(), "rip", "rsp", 8)
GRAMMAR = Grammar(partial(att.parse, _SYNTAX), partial(att.render, _SYNTAX), 8, partial(att.common, _SYNTAX))
