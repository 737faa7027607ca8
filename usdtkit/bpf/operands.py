"""Where a USDT probe's arguments lie → entries of the map `operands`, which `usdt_operand` of prelude.c reads.

Input: the operands of a site, which `elf` has read from its note. Output: bytes in the layout of `struct operand` of
prelude.c. A probe's sites differ in where their arguments lie, so each site's cookie names its list in that map.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from usdtkit.bpf.abi import abi_of
from usdtkit.errors import UnsupportedError
from usdtkit.model import Operand

MAX_OPERANDS = 12
"""Arguments of a probe or function that a program can read."""

_OPERAND = struct.Struct("<qhhBBBB")
NO_OPERAND = _OPERAND.pack(0, -1, -1, 0, 0, 8, 0)


def pack_operand(operand: Operand, machine: str) -> bytes:
    """One operand as `struct operand`. An unreadable one becomes NO_OPERAND: `names` refuses to read it earlier."""
    if operand.kind == "unreadable":
        return NO_OPERAND
    offsets = abi_of(machine).offsets
    for register in (operand.base, operand.index):
        if register is not None and register not in offsets:
            raise UnsupportedError(
                f"{operand.text} is for another machine than this {machine}", hint="trace it on such a machine"
            )
    return _OPERAND.pack(
        (operand.value + 2**63) % 2**64 - 2**63,
        -1 if operand.base is None else offsets[operand.base] + operand.shift // 8,
        -1 if operand.index is None else offsets[operand.index],
        operand.scale,
        operand.kind == "memory",
        operand.size,
        operand.signed,
    )


def pack_operands(operands: Sequence[Operand], machine: str) -> list[bytes]:
    """The list of one site in the map `operands`: MAX_OPERANDS entries."""
    packed = [pack_operand(operand, machine) for operand in operands[:MAX_OPERANDS]]
    return packed + [NO_OPERAND] * (MAX_OPERANDS - len(packed))
