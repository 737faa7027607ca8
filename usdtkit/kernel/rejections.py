"""Calls of probes that could not be fired → counts in a map, by the number of their probe.

Programs that use usdtkit hit a second site of a probe when the values of a call do not fit (`usdtkit.elf.stubs`).
Input: the bytecode of a session's program, and the numbers of the probes that have such sites. Output: the bytecode
with one more map and one more program, which counts at these sites. That program is assembled here instead of compiled,
so that the text and the compiled bytecode of a session do not depend on whether usdtkit made what it traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from usdtkit.bpf.cookie import COOKIE_LIST_BITS, MAX_PROBES
from usdtkit.bpf.uapi import (
    ADD_IMMEDIATE,
    ATOMIC_ADD,
    CALL,
    EXIT,
    GET_ATTACH_COOKIE,
    JUMP_IF_ZERO,
    LOAD_IMMEDIATE,
    MAP_ARRAY,
    MAP_LOOKUP,
    MOVE,
    MOVE32,
    MOVE_IMMEDIATE,
    PSEUDO_MAP_FD,
    SHIFT_RIGHT,
    STORE32,
    assemble,
)
from usdtkit.records import replace

if TYPE_CHECKING:
    from usdtkit.bpf.bytecode import Bytecode
    from usdtkit.kernel.maps import Map

REJECTED = "rejected"
"""The name of the map, and of the program."""

FIRST_NUMBER = MAX_PROBES // 2
"""The number of a probe in the cookies of such sites is this and its number here. So no hook has the same cookies."""


def _code(map_index: int) -> bytes:
    """rejected[(cookie >> COOKIE_LIST_BITS) - FIRST_NUMBER] += 1, with the map's index where `load` puts its
    descriptor."""
    return assemble(
        (CALL, 0x00, 0, GET_ATTACH_COOKIE),
        (MOVE32, 0x00, 0, 0),  # r0 = (u32)r0, without the number of the file
        (SHIFT_RIGHT, 0x00, 0, COOKIE_LIST_BITS),  # r0 >>= …
        (ADD_IMMEDIATE, 0x00, 0, -FIRST_NUMBER),
        (STORE32, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = r0
        (LOAD_IMMEDIATE, PSEUDO_MAP_FD << 4 | 1, 0, map_index),  # r1 = the map
        (0, 0, 0, 0),
        (MOVE, 0xA2, 0, 0),  # r2 = r10 - 4
        (ADD_IMMEDIATE, 0x02, 0, -4),
        (CALL, 0x00, 0, MAP_LOOKUP),
        (JUMP_IF_ZERO, 0x00, 2, 0),  # if (r0) lock *(u64 *)r0 += 1
        (MOVE_IMMEDIATE, 0x01, 0, 1),
        (ATOMIC_ADD, 0x10, 0, 0),
        (MOVE_IMMEDIATE, 0x00, 0, 0),  # return 0
        (EXIT, 0x00, 0, 0),
    )


def counting(bytecode: Bytecode, probes: int) -> Bytecode:
    """The bytecode with the program that counts for so many probes; the same bytecode for none."""
    if not probes:
        return bytecode
    from usdtkit.bpf.bytecode import MapDescription

    description = MapDescription(REJECTED, MAP_ARRAY, 4, 8, probes, 0)
    programs = {**bytecode.programs, REJECTED: _code(len(bytecode.maps))}
    return replace(bytecode, maps=(*bytecode.maps, description), programs=programs)


def read(map_: Map, numbers: Mapping[int, str]) -> dict[str, int]:
    """How many calls of each probe were not fired, of the probes that had any."""
    counts: dict[str, int] = {}
    for number, name in numbers.items():
        if count := int.from_bytes(map_[number.to_bytes(4, "little")], "little"):
            counts[name] = counts.get(name, 0) + count
    return counts
