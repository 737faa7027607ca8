"""The flow of control in decoded code: the nouns, and what jumps say about it.

`usdtkit.elf.decoder` makes `Code`; `usdtkit.elf.exits` and `usdtkit.elf.golang` ask about it. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from usdtkit.records import NamedTuple

# Kinds of flows, and their flags, as native/decode.h has them.
RETURN, JUMP, BRANCH, INDIRECT, CALL, STOP = 1, 2, 3, 4, 5, 6
REFUSED, NOTRACK, TABLE, ARRAY, MEMORY, SLOT, CONDITION = 1, 2, 4, 8, 16, 32, 64

# Why the flow of a range is not known.
UNDECODABLE = "its code cannot be decoded: it holds data, or is not compiled code"
RUNS_ON = "it continues into the code after it"


class Flow(NamedTuple):
    """One instruction that changes the flow of control; `at` and `target` are virtual addresses.

    `condition` is the x86 condition code of a conditional branch.
    """

    at: int
    length: int
    kind: int
    condition: int
    flags: int
    target: int


class Code(NamedTuple):
    """A decoded range; `problem` is why it could not be decoded, or "".

    `begins` has a byte for each of the range: 1 where an instruction begins, and 2 behind its LOCK prefix, over which
    jumps may lead.
    """

    start: int
    begins: bytes
    flows: list[Flow]
    problem: str

    def contains(self, address: int) -> bool:
        """Return whether a virtual address lies in the range."""
        return self.start <= address < self.start + len(self.begins)


def is_in_step(ranges: Sequence[Code]) -> bool:
    """Return whether every jump within and between the ranges leads to the start of an instruction."""
    return all(
        code.begins[flow.target - code.start]
        for source in ranges
        for flow in source.flows
        if flow.kind in (JUMP, BRANCH)
        for code in ranges
        if code.contains(flow.target)
    )


def reached_from_entry(ranges: Sequence[Code]) -> set[int]:
    """Return the addresses of the flows that control reaches from the start of the first range, as far as
    jumps tell."""
    flows = [flow for code in ranges for flow in code.flows]
    if len(ranges) > 1:
        flows.sort()
    addresses = [flow.at for flow in flows]
    reached: set[int] = set()
    low = ranges[0].start
    high = low + len(ranges[0].begins)
    queue = [low]
    while queue:
        at = bisect_left(addresses, queue.pop())
        while at < len(flows):
            flow = flows[at]
            if flow.at in reached:
                break
            reached.add(flow.at)
            kind = flow.kind
            if kind in (JUMP, BRANCH):
                target = flow.target
                if low <= target < high or any(code.contains(target) for code in ranges[1:]):
                    queue.append(target)
            if kind not in (BRANCH, CALL):
                break
            at += 1
    return reached
