"""The C text of a program → bytecode, without a compiler: the C that our own programs consist of, and no more.

Input: a program's text, as `usdtkit.bpf.program` writes it. Output: the same maps and programs that bcc makes of it,
in milliseconds instead of seconds. What it does not know (C of a user's own, above all) raises UntranslatableError, and
`compiler` then asks bcc.

`tokens` → `parser` (on `terms`, on `reader`) makes nodes of `syntax` → `lowering` (on `calls`, `expressions`, `scopes`,
`arithmetic`) makes `code` over virtual registers → `allocation` → `emission`. It optimises little: the verifier wants
code that it can follow, and a hit costs many times what the program takes.
"""

from __future__ import annotations

import os
import struct
from functools import cache

from usdtkit.bpf.bytecode import Bytecode
from usdtkit.bpf.translator import kernel
from usdtkit.bpf.translator.allocation import allocate
from usdtkit.bpf.translator.emission import emit
from usdtkit.bpf.translator.errors import UntranslatableError as UntranslatableError
from usdtkit.bpf.translator.lowering import Lowering
from usdtkit.bpf.translator.parser import Parser
from usdtkit.bpf.translator.scopes import STACK_SIZE
from usdtkit.bpf.translator.tokens import tokens

__all__ = ["UntranslatableError", "obstacle", "translate"]

TRACEPOINT = "struct bpf_raw_tracepoint_args { u64 args[0]; };"  # which bcc knows
HEADERS = f"{__file__.rpartition('/')[0]}/../headers/include"
_NO_C_OF_OURS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError),
    struct.error,
)


def translate(text: str) -> Bytecode:
    """The bytecode of a program's text. UntranslatableError, whose message says what is not understood."""
    try:
        return _translate(text)
    except _NO_C_OF_OURS as error:
        # A text that is no C of ours, such as a call with too few arguments; bcc's compiler says better what is wrong.
        raise UntranslatableError(f"{type(error).__name__}: {error}") from error


def obstacle(text: str) -> str:
    """What in a program's text only bcc can compile; "" where it can be translated."""
    try:
        translate(text)
    except UntranslatableError as error:
        return str(error)
    return ""


def _translate(text: str) -> Bytecode:
    machine = f"__{os.uname().machine}__"
    parser = Parser(tokens(f"{_registers()}{TRACEPOINT}\n{text}", (machine,)))
    described = {name: kernel.map_of(name, declaration) for name, declaration in parser.maps.items()}
    maps = {name: (index, described[name]) for index, name in enumerate(sorted(described))}
    programs = {}
    for name in parser.programs:
        lowering = Lowering(parser, maps)
        code, stack = allocate(lowering.program(name), lowering.stack)
        if stack > STACK_SIZE:
            raise UntranslatableError("values that take more than the stack of 512 bytes")
        programs[name] = emit(code)
    return Bytecode(tuple(described[name].description for name in sorted(described)), programs, "")


@cache
def _registers() -> str:
    """The C of struct pt_regs."""
    with open(f"{HEADERS}/linux/ptrace.h", encoding="utf-8") as file:  # noqa: PTH123  importing pathlib takes long
        return file.read()
