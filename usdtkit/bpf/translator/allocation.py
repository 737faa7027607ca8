"""Virtual registers → the processor's, or places in the stack.

Input: the instructions of one program. Output: those of them that matter, with the place of every register.

It is a linear scan: each register has the interval from where it is first needed to where it is last needed, and a
place of its own during that. What must survive a call gets one of r6 to r9, everything else one of r1 to r4 as well;
r0 and r5 are left for values that come from the stack. Where there are too few, those that are used least stay in the
stack.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from usdtkit.bpf.translator.code import Instruction, Label, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.records import dataclass, field

KEPT, LOST = (6, 7, 8, 9), (1, 2, 3, 4)  # by calls


@dataclass(eq=False)
class _Block:
    """Instructions from `first` up to `end` that run one after the other; sets of registers are bits of integers."""

    first: int
    end: int
    read: int = 0
    written: int = 0
    live_in: int = 0
    live_out: int = 0
    following: list[int] = field(default_factory=list)


@dataclass(eq=False)
class _Interval:
    """Where a register is needed: from `start` to `end`. Positions are twice the index of an instruction, where it
    reads, and one more, where it writes."""

    register: Register
    start: int
    end: int
    uses: int = 0
    crosses_call: bool = False

    @property
    def weight(self) -> float:
        """What it costs to have it in the stack."""
        return float("inf") if self.register.is_pinned else self.uses / (self.end - self.start + 1)


def allocate(instructions: Sequence[Instruction], stack: int) -> tuple[list[Instruction], int]:
    """The instructions that matter, with places set; and the bytes of the stack that are taken, of which `stack` were.

    UntranslatableError where the verifier needs more values in registers than there are.
    """
    code = _without_dead(_reachable(instructions))
    intervals = _intervals(code)
    calls = [2 * index for index, instruction in enumerate(code) if instruction.kind == "call"]
    for interval in intervals:
        after = bisect_right(calls, interval.start)
        interval.crosses_call = after < len(calls) and calls[after] < interval.end
    return code, _scan(intervals, stack)


def _reachable(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Without what nothing leads to, which the verifier refuses, and without jumps to the next instruction."""
    at = {instruction.label: index for index, instruction in enumerate(instructions) if instruction.kind == "label"}
    seen = bytearray(len(instructions))
    waiting = [0]
    while waiting:
        index = waiting.pop()
        while not seen[index]:
            seen[index] = 1
            instruction = instructions[index]
            if instruction.kind in ("goto", "if"):
                waiting.append(at[instruction.label])
            if not instruction.goes_on:
                break
            index += 1
    kept = [instruction for index, instruction in enumerate(instructions) if seen[index]]
    return [instruction for index, instruction in enumerate(kept) if not _leads_on(kept, index)]


def _leads_on(code: Sequence[Instruction], index: int) -> bool:
    if code[index].kind != "goto":
        return False
    following = index + 1
    while following < len(code) and code[following].kind == "label":
        if code[following].label is code[index].label:
            return True
        following += 1
    return False


def _without_dead(code: list[Instruction]) -> list[Instruction]:
    """Without calculations whose results nobody reads."""
    while True:
        read = {
            register
            for instruction in code
            for register in instruction.read()
            if register is not instruction.result or instruction.has_effect
        }
        kept = [
            instruction
            for instruction in code
            if instruction.has_effect or instruction.result in read or instruction.kind == "context"
        ]
        if len(kept) == len(code):
            break
        code = kept
    for instruction in code:
        if instruction.kind == "call" and instruction.result not in read:
            instruction.result = None
    return code


def _blocks(code: Sequence[Instruction]) -> list[_Block]:
    starts = [0]
    for index, instruction in enumerate(code):
        if instruction.kind == "label" and index:
            starts.append(index)
        elif instruction.kind in ("goto", "if", "return"):
            starts.append(index + 1)
    starts = sorted({start for start in starts if start < len(code)})
    blocks = [_Block(first, end) for first, end in zip(starts, [*starts[1:], len(code)], strict=True)]
    by_label: dict[Label | None, int] = {}
    for number, block in enumerate(blocks):
        if code[block.first].kind == "label":
            by_label[code[block.first].label] = number
    for number, block in enumerate(blocks):
        last = code[block.end - 1]
        if last.goes_on and number + 1 < len(blocks):
            block.following.append(number + 1)
        if last.kind in ("goto", "if"):
            block.following.append(by_label[last.label])
        for instruction in code[block.first : block.end]:
            for register in instruction.read():
                block.read |= 1 << register.number & ~block.written
            if instruction.result is not None:
                block.written |= 1 << instruction.result.number
    return blocks


def _intervals(code: Sequence[Instruction]) -> list[_Interval]:
    blocks = _blocks(code)
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            block.live_out = 0
            for number in block.following:
                block.live_out |= blocks[number].live_in
            live_in = block.read | block.live_out & ~block.written
            changed = changed or live_in != block.live_in
            block.live_in = live_in
    found: dict[int, _Interval] = {}
    for index, instruction in enumerate(code):
        for register in instruction.read():
            _extend(found, register, 2 * index).uses += 10**instruction.loops
        if instruction.result is not None:
            _extend(found, instruction.result, 2 * index + 1).uses += 10**instruction.loops
    for block in blocks:
        for number in _bits(block.live_in):
            interval = found[number]
            interval.start, interval.end = min(interval.start, 2 * block.first), max(interval.end, 2 * block.first)
        for number in _bits(block.live_out):
            found[number].end = max(found[number].end, 2 * block.end - 1)
    return sorted(found.values(), key=lambda interval: interval.start)


def _extend(found: dict[int, _Interval], register: Register, position: int) -> _Interval:
    interval = found.get(register.number)
    if interval is None:
        interval = found[register.number] = _Interval(register, position, position)
    interval.end = max(interval.end, position)
    return interval


def _bits(numbers: int) -> Iterator[int]:
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest


def _scan(intervals: Sequence[_Interval], stack: int) -> int:
    active: list[_Interval] = []
    spilled: list[_Interval] = []
    for current in intervals:
        active = [interval for interval in active if interval.end >= current.start]
        usable = KEPT if current.crosses_call else (*LOST, *KEPT)
        taken = {interval.register.place for interval in active}
        free = [place for place in usable if place not in taken]
        if free:
            twin = current.register.twin
            current.register.place = twin.place if twin is not None and twin.place in free else free[0]
        else:
            least = min((interval for interval in active if interval.register.place in usable), key=lambda i: i.weight)
            if least.weight >= current.weight:
                least = current
            elif least.weight < current.weight:
                current.register.place = least.register.place
                active.remove(least)
            if least.register.is_pinned:
                raise UntranslatableError("more values at once than the processor has registers")
            spilled.append(least)
            if least is current:
                continue
        active.append(current)
    return _place_in_stack(spilled, stack)


def _place_in_stack(spilled: list[_Interval], stack: int) -> int:
    """Places for what is not in registers, one after the other in the same place where that goes."""
    until: list[int] = []  # of each place, where it becomes free
    for interval in sorted(spilled, key=lambda interval: interval.start):
        slot = next((slot for slot, end in enumerate(until) if end < interval.start), len(until))
        until[slot:] = [interval.end, *until[slot + 1 :]]
        interval.register.place = -(stack + 8 * (slot + 1))
    return stack + 8 * len(until)
