"""Instructions with places for their registers → bytecode.

Input: what `allocation` gives. Output: bytes as the kernel takes them, but for maps and parameters, which
`usdtkit.kernel.load` fills in. What is in the stack goes through r0 and r5.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.bpf import uapi
from usdtkit.bpf.translator.code import Address, Instruction, Label, MapReference, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError

_LOAD = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
_STORE = {1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}
_STORE_NUMBER = {1: 0x72, 2: 0x6A, 4: 0x62, 8: 0x7A}
_ATOMIC = {4: 0xC3, 8: 0xDB}
_ALU64, _ALU32, _JUMP, _FROM_REGISTER = 0x07, 0x04, 0x05, 0x08
_MOVE32 = 0xBC
_FIRST, _SECOND, _FRAME = 0, 5, 10  # the registers that nothing is placed in, and the one of the stack
LONGEST_JUMP = 0x7FFF


def emit(code: Sequence[Instruction]) -> bytes:
    """The bytecode of one program."""
    return _Emission().program(code)


class _Emission:
    def __init__(self) -> None:
        self._out: list[tuple[int, int, int, int]] = []
        self._jumps: list[tuple[int, Label]] = []

    def program(self, code: Sequence[Instruction]) -> bytes:
        for instruction in code:
            getattr(self, f"_{instruction.kind}")(instruction)
        for at, label in self._jumps:
            opcode, registers, _, immediate = self._out[at]
            distance = label.position - at - 1
            if abs(distance) > LONGEST_JUMP:
                raise UntranslatableError("a function whose jumps are too long")
            self._out[at] = (opcode, registers, distance, immediate)
        return uapi.assemble(*self._out)

    def _add(self, opcode: int, target: int, source: int = 0, offset: int = 0, immediate: int = 0) -> None:
        self._out.append((opcode, source << 4 | target, offset, immediate))

    def _get(self, operand: Operand, scratch: int) -> int:
        """The number of the register that an operand is in."""
        assert isinstance(operand, Register)
        if operand.place > 0:
            return operand.place
        self._add(_LOAD[8], scratch, _FRAME, operand.place)
        return scratch

    def _target(self, register: Register | None) -> int:
        assert register is not None
        return register.place if register.place > 0 else _FIRST

    def _put(self, register: Register | None, number: int) -> None:
        """Write a result that was computed in a register to where it belongs."""
        assert register is not None
        if register.place < 0:
            self._add(_STORE[8], _FRAME, number, register.place)
        elif register.place != number:
            self._add(uapi.MOVE, register.place, number)

    def _context(self, instruction: Instruction) -> None:
        self._put(instruction.result, instruction.number)

    def _move(self, instruction: Instruction) -> None:
        [source] = instruction.sources
        if not isinstance(source, int):
            self._put(instruction.result, self._get(source, _FIRST))
        elif instruction.result is not None and instruction.result.place < 0:
            self._add(_STORE_NUMBER[8], _FRAME, 0, instruction.result.place, source)
        else:
            self._add(uapi.MOVE_IMMEDIATE, self._target(instruction.result), immediate=source)

    def _move32(self, instruction: Instruction) -> None:
        target = self._target(instruction.result)
        self._add(_MOVE32, target, self._get(instruction.sources[0], _FIRST))
        self._put(instruction.result, target)

    def _alu(self, instruction: Instruction) -> None:
        self._operate(instruction, _ALU64)

    def _alu32(self, instruction: Instruction) -> None:
        self._operate(instruction, _ALU32)

    def _operate(self, instruction: Instruction, width: int) -> None:
        left, right = instruction.sources
        target = self._get(left, _FIRST)
        if isinstance(right, int):
            self._add(instruction.number | width, target, immediate=right)
        else:
            self._add(instruction.number | width | _FROM_REGISTER, target, self._get(right, _SECOND))
        self._put(instruction.result, target)

    def _load(self, instruction: Instruction) -> None:
        target = self._target(instruction.result)
        base = self._get(instruction.sources[0], _FIRST)
        self._add(_LOAD[instruction.number], target, base, instruction.offset)
        self._put(instruction.result, target)

    def _store(self, instruction: Instruction) -> None:
        base, value = instruction.sources
        at = self._get(base, _FIRST)
        if isinstance(value, int):
            self._add(_STORE_NUMBER[instruction.number], at, 0, instruction.offset, value)
        else:
            self._add(_STORE[instruction.number], at, self._get(value, _SECOND), instruction.offset)

    def _atomic(self, instruction: Instruction) -> None:
        base, value = instruction.sources
        at = self._get(base, _FIRST)
        self._add(_ATOMIC[instruction.number], at, self._get(value, _SECOND), instruction.offset)

    def _wide(self, target: int, source: int, low: int, high: int) -> None:
        self._add(uapi.LOAD_IMMEDIATE, target, source, 0, _as_signed(low))
        self._add(0, 0, 0, 0, _as_signed(high))

    def _constant(self, instruction: Instruction) -> None:
        target = self._target(instruction.result)
        self._wide(target, 0, instruction.number & 0xFFFF_FFFF, instruction.number >> 32)
        self._put(instruction.result, target)

    def _filled(self, instruction: Instruction) -> None:
        target = self._target(instruction.result)
        self._wide(target, 0, instruction.number, instruction.offset)
        self._put(instruction.result, target)

    def _call(self, instruction: Instruction) -> None:
        # First what is in registers already, in an order in which none is overwritten before it was read.
        moves: dict[int, int] = {}
        for number, source in enumerate(instruction.sources, 1):
            register = source.base if isinstance(source, Address) else source
            if isinstance(register, Register) and register.place > 0 and register.place != number:
                moves[number] = register.place
        while moves:
            free = [target for target in moves if target not in moves.values()]
            if free:
                for target in free:
                    self._add(uapi.MOVE, target, moves.pop(target))
            else:  # a circle
                target, source_place = next(iter(moves.items()))
                self._add(uapi.MOVE, _FIRST, source_place)
                moves[target] = _FIRST
        for number, source in enumerate(instruction.sources, 1):
            self._argument(number, source)
        self._add(uapi.CALL, 0, immediate=instruction.number)
        if instruction.result is not None:
            self._put(instruction.result, _FIRST)

    def _argument(self, number: int, source: Operand) -> None:
        """Set an argument of a call, unless its register was moved there."""
        match source:
            case int() if -(2**31) <= source < 2**31:
                self._add(uapi.MOVE_IMMEDIATE, number, immediate=source)
            case int():
                self._wide(number, 0, source & 0xFFFF_FFFF, source >> 32 & 0xFFFF_FFFF)
            case MapReference(map_number):
                self._wide(number, uapi.PSEUDO_MAP_FD, map_number, 0)
            case Address(base, offset):
                self._argument(number, base)
                if offset:
                    self._add(uapi.ADD_IMMEDIATE, number, immediate=offset)
            case Register() if source.place < 0:
                self._add(_LOAD[8], number, _FRAME, source.place)

    def _if(self, instruction: Instruction) -> None:
        left, right = instruction.sources
        assert instruction.label is not None
        a = self._get(left, _FIRST)
        b = 0 if isinstance(right, int) else self._get(right, _SECOND)
        self._jumps.append((len(self._out), instruction.label))
        if isinstance(right, int):
            self._add(instruction.number | _JUMP, a, immediate=right)
        else:
            self._add(instruction.number | _JUMP | _FROM_REGISTER, a, b)

    def _goto(self, instruction: Instruction) -> None:
        assert instruction.label is not None
        self._jumps.append((len(self._out), instruction.label))
        self._add(_JUMP, 0)

    def _label(self, instruction: Instruction) -> None:
        assert instruction.label is not None
        instruction.label.position = len(self._out)

    def _return(self, instruction: Instruction) -> None:
        [value] = instruction.sources
        if isinstance(value, int):
            self._add(uapi.MOVE_IMMEDIATE, 0, immediate=value)
        else:
            number = self._get(value, _FIRST)
            if number != 0:
                self._add(uapi.MOVE, 0, number)
        self._add(uapi.EXIT, 0)


def _as_signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number
