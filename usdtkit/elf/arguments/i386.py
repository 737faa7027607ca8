"""i386 operands: the registers, for the syntax of `att`. Used by `usdtkit.elf.arguments`.

`symbol@GOTOFF(%ebx)` is how position-independent code reaches its data, `symbol(,%eax,4)` how other code does.
"""

from __future__ import annotations

from functools import partial

from usdtkit.elf.arguments import att
from usdtkit.elf.arguments.att import Register
from usdtkit.elf.arguments.common import Grammar


def _registers() -> dict[str, Register]:
    table = {}
    for letter in "abcd":
        full = f"e{letter}x"
        for name, size, shift in ((full, 4, 0), (f"{letter}x", 2, 0), (f"{letter}l", 1, 0), (f"{letter}h", 1, 8)):
            table[name] = Register(full, size, shift)
    for short in ("si", "di", "bp", "sp"):
        table[f"e{short}"] = Register(f"e{short}", 4)
        table[short] = Register(f"e{short}", 2)
    return table


_SYNTAX = att.Syntax(_registers(), "eip", "esp", 4)
GRAMMAR = Grammar(partial(att.parse, _SYNTAX), partial(att.render, _SYNTAX), 4, partial(att.common, _SYNTAX))
