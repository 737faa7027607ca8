"""Where a USDT probe's arguments lie → entries of the map `operands`, which the program's `usdt_operand` reads.

Input: the model's operands of a site, from `elf`. Output: bytes in the layout of `struct operand` in prelude.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from usdtkit.bpf.render import MAX_OPERANDS
from usdtkit.errors import UnsupportedError
from usdtkit.model import Operand

# Where the kernel's pt_regs keeps each register.
_X86_64 = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
)
# Programs of 32 bits run on the same registers.
_I386 = {name: name.replace("e", "r", 1) for name in ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip")}
_AARCH64 = (*(f"x{n}" for n in range(31)), "sp", "pc")
REGISTER_OFFSETS: dict[str, dict[str, int]] = {
    "x86_64": {
        **{name: 8 * at for at, name in enumerate(_X86_64)},
        **{name: 8 * _X86_64.index(full) for name, full in _I386.items()},
    },
    "aarch64": {name: 8 * at for at, name in enumerate(_AARCH64)},
}
NO_OPERAND = struct.pack("<qhhBBBB", 0, -1, -1, 0, 0, 8, 0)


def pack_operand(operand: Operand, machine: str) -> bytes:
    """An operand as the program's `struct operand`. One that cannot be read is in no program (see `render`)."""
    if operand.kind == "unreadable":
        return NO_OPERAND
    offsets = REGISTER_OFFSETS[machine]
    for register in (operand.base, operand.index):
        if register is not None and register not in offsets:
            raise UnsupportedError(f"{operand.text} is for another machine than this {machine}", hint="trace it there")
    return struct.pack(
        "<qhhBBBB",
        (operand.value + 2**63) % 2**64 - 2**63,
        -1 if operand.base is None else offsets[operand.base] + operand.shift // 8,
        -1 if operand.index is None else offsets[operand.index],
        operand.scale,
        operand.kind == "memory",
        operand.size,
        operand.signed,
    )


def pack_operands(operands: Sequence[Operand], machine: str) -> list[bytes]:
    """The entries of one site in the map `operands`: MAX_OPERANDS of them."""
    packed = [pack_operand(operand, machine) for operand in operands[:MAX_OPERANDS]]
    return packed + [NO_OPERAND] * (MAX_OPERANDS - len(packed))
