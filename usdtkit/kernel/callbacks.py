"""Functions that the kernel calls in a loop (bpf_loop) → the end of the program that names them.

Input: the bytecode of a program, in which CALLBACK_MAGIC in the upper half of a 64-bit constant stands for a function,
whose number is the lower half; and the bytecode of these functions. Output: a program that has them, and what
the kernel must be told of all its functions. `load` uses it when everything else of a program is in place, because the
distances are counted from there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from usdtkit._ffi import check, ffi, lib
from usdtkit.bpf.uapi import CALL, CALLBACK_MAGIC, INSTRUCTION, LOAD_IMMEDIATE, PSEUDO_CALL, PSEUDO_FUNC

# BTF, as the kernel's documentation has it: the numbers of types are those of this list, from 1 on.
_PROGRAM, _FUNCTION = 3, 4
_STRINGS = b"\0int\0program\0function\0"
_TYPES = b"".join(
    (
        struct.pack("<4I", 1, 1 << 24, 4, 1 << 24 | 32),  # 1: int
        struct.pack("<3I", 0, 13 << 24, 1),  # 2: int ()
        struct.pack("<3I", 5, 12 << 24 | 1, 2),  # 3: a global function, as the program itself is one
        struct.pack("<3I", 13, 12 << 24, 2),  # 4: a static function, as the others must be
    )
)
_BTF = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_STRINGS)) + _TYPES + _STRINGS


def with_callbacks(code: bytes, callbacks: Mapping[int, bytes]) -> tuple[bytes, list[int]]:
    """The program with the functions that it, or one of them, names, each once, and where its functions begin, in
    instructions; no places if it names none. KeyError of a number that no function has."""
    named = _named(code)
    if not named:
        return code, []
    whole, first = bytearray(code), {}
    for at, number in named:
        if number not in first:
            first[number] = len(whole) // 8
            named += [(first[number] + inside, other) for inside, other in _named(callbacks[number])]
            whole += callbacks[number]
        target = INSTRUCTION.unpack_from(whole, 8 * at)[1] & 15
        INSTRUCTION.pack_into(whole, 8 * at, LOAD_IMMEDIATE, PSEUDO_FUNC << 4 | target, 0, first[number] - at - 1)
        INSTRUCTION.pack_into(whole, 8 * at + 8, 0, 0, 0, 0)
    called = {
        at + 1 + immediate
        for at, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code))
        if opcode == CALL and registers >> 4 == PSEUDO_CALL
    }
    return bytes(whole), sorted({0, *called, *first.values()})


def _named(code: bytes) -> list[tuple[int, int]]:
    """Where a program names functions, in instructions, and their numbers."""
    return [
        (at, immediate)
        for at, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code))
        if opcode == LOAD_IMMEDIATE and registers >> 4 == 0 and _upper_half(code, at) == CALLBACK_MAGIC
    ]


def _upper_half(code: bytes, at: int) -> int:
    """That of the 64-bit constant that an instruction loads; struct.error if the code ends within it."""
    value: int = struct.unpack_from("<I", code, 8 * at + 12)[0]
    return value


@contextmanager
def functions(firsts: Sequence[int]) -> Iterator[Any]:
    """What the kernel must be told, while it loads a program, of functions that begin at these places: a pointer to
    usdtkit_functions, NULL without any. UsdtkitError where the kernel takes no types."""
    if not firsts:
        yield ffi.NULL
        return
    described = ffi.new("usdtkit_function[]", [(first, _FUNCTION if first else _PROGRAM) for first in firsts])
    types = check(lib.usdtkit_btf_load(_BTF, len(_BTF)), "giving the kernel the types of a program")
    try:
        yield ffi.new("usdtkit_functions *", (described, len(firsts), types))
    finally:
        os.close(types)
