"""Several programs → one that calls the right one of them, so that one link can serve them all.

Input: bytecode of programs, and the ranges of cookies that their sites have. Output: bytecode of one program, for
`load`. Detaching costs the same for each link, whatever number of sites it has, so fewer links are quicker to close.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from usdtkit.bpf.abi import ABIS
from usdtkit.bpf.uapi import (
    CALL,
    EXIT,
    GET_ATTACH_COOKIE,
    GET_FUNC_IP,
    JUMP32_IF_ABOVE,
    JUMP_IF_UNEQUAL,
    LOAD,
    MOVE,
    PSEUDO_CALL,
    assemble,
)


def dispatcher(
    ranges: Sequence[tuple[int, int, str]], codes: Mapping[str, bytes], returns: Mapping[str, str] | None
) -> bytes:
    """One program that calls the one whose range of cookies holds the site's.

    `ranges`: the lowest and the highest cookie of a program, and its name, in order. `codes`: bytecode by name.
    `returns`: for the link of a uprobe session, which program runs at a return, by the name of the entry's.

    Raises LookupError where ranges overlap, or where this machine's struct pt_regs is not known.
    """
    # Calls instead of one long function, because the verifier's time grows faster than a function's length.
    if any(before[1] >= after[0] for before, after in pairwise(ranges)):
        raise LookupError("a cookie is in the ranges of two programs")
    names = [name for *_, name in ranges]
    code = [(MOVE, 0x16, 0, 0)]  # r6 = r1
    if returns is not None:
        # At an entry the instruction is the function's first: r7 = bpf_get_func_ip(), r8 = the instruction.
        instruction = ABIS[os.uname().machine].instruction_offset
        code += [(CALL, 0, 0, GET_FUNC_IP), (MOVE, 0x07, 0, 0), (LOAD, 0x68, instruction, 0), (MOVE, 0x61, 0, 0)]
    code.append((CALL, 0, 0, GET_ATTACH_COOKIE))
    if returns is not None:
        code.append((JUMP_IF_UNEQUAL, 0x87, len(ranges) * 4 - 1, 0))
    called = [names] if returns is None else [names, [returns[name] for name in names]]
    start = {}
    end = len(code) + len(called) * (len(ranges) * 4 - 1)
    for name in chain.from_iterable(called):
        start[name] = end
        end += len(codes[name]) // 8
    for group in called:
        for (_, highest, _), name in zip(ranges, group, strict=True):
            if name is not group[-1]:
                code.append((JUMP32_IF_ABOVE, 0, 3, (highest + 2**31) % 2**32 - 2**31))
            code.append((MOVE, 0x61, 0, 0))  # r1 = r6
            code.append((CALL, PSEUDO_CALL << 4, 0, start[name] - len(code) - 1))
            code.append((EXIT, 0, 0, 0))
    return b"".join([assemble(*code), *(codes[name] for name in start)])
