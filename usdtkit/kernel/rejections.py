"""Calls of probes that could not be fired → counts in a map, by the number of their probe.

In: the bytecode of a session's program, and which numbers its sites for such calls have (`usdtkit.elf.stubs`). Out: the
bytecode with one more map and one more program. That program is made of instructions here and not of C, so that text
and compiled bytecode of a session are the same whether or not what it traces was made by usdtkit.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from usdtkit.bpf.compiler import Bytecode, MapDescription
from usdtkit.bpf.cookie import COOKIE_LIST_BITS
from usdtkit.kernel.maps import ARRAY, Map
from usdtkit.records import replace

REJECTED = "rejected"  # the names of the map and of the program

_GET_ATTACH_COOKIE, _MAP_LOOKUP = 174, 1


def _code(map_index: int) -> bytes:
    """rejected[cookie >> COOKIE_LIST_BITS] += 1, as `loader` links it."""
    instructions = (
        (0x85, 0x00, 0, _GET_ATTACH_COOKIE),
        (0x77, 0x00, 0, COOKIE_LIST_BITS),  # r0 >>= …
        (0x63, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = r0
        (0x18, 0x11, 0, map_index),  # r1 = the map
        (0x00, 0x00, 0, 0),
        (0xBF, 0xA2, 0, 0),  # r2 = r10 - 4
        (0x07, 0x02, 0, -4),
        (0x85, 0x00, 0, _MAP_LOOKUP),
        (0x15, 0x00, 2, 0),  # if (r0) lock *(u64 *)r0 += 1
        (0xB7, 0x01, 0, 1),
        (0xDB, 0x10, 0, 0),
        (0xB7, 0x00, 0, 0),  # return 0
        (0x95, 0x00, 0, 0),
    )
    return b"".join(struct.pack("<BBhi", *instruction) for instruction in instructions)


def counting(bytecode: Bytecode, numbers: Mapping[int, str]) -> Bytecode:
    """The same bytecode, with what counts at the sites of these numbers; without any, itself."""
    if not numbers:
        return bytecode
    description = MapDescription(REJECTED, ARRAY, 4, 8, max(numbers) + 1, 0)
    programs = {**bytecode.programs, REJECTED: _code(len(bytecode.maps))}
    return replace(bytecode, maps=(*bytecode.maps, description), programs=programs)


def read(map_: Map, numbers: Mapping[int, str]) -> dict[str, int]:
    """How many calls of each probe were not fired, of those of which there were any."""
    found: dict[str, int] = {}
    for number, name in numbers.items():
        if count := int.from_bytes(map_[number.to_bytes(4, "little")], "little"):
            found[name] = found.get(name, 0) + count
    return found
