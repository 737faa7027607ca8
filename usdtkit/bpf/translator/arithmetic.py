"""Calculations with numbers and registers → instructions.

Input: operands with their types. Output: instructions in the `Assembly` of one program, and operands again. A number in
a register is always extended to 64 bits as its type says, so that comparisons and widening need no instruction.
Calculations of numbers alone are done here.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable

from usdtkit.bpf.translator.code import FRAME, Address, Instruction, Label, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.types import INT, S64, U64, Integer, Pointer, Type, common
from usdtkit.records import NamedTuple

# The operation's bits in the opcode.
_ALU = {"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "%": 0x90, "^": 0xA0}
ARITHMETIC_SHIFT = 0xC0
# Of conditional jumps, by whether the operands are signed.
_JUMPS = {
    False: {"==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50, "<": 0xA0, "<=": 0xB0},
    True: {"==": 0x10, ">": 0x60, ">=": 0x70, "!=": 0x50, "<": 0xC0, "<=": 0xD0},
}
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SWAPPED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_FOLDED: dict[str, Callable[[int, int], int]] = {
    **{"+": operators.add, "-": operators.sub, "*": operators.mul, "|": operators.or_, "&": operators.and_},
    **{"^": operators.xor, "==": operators.eq, "!=": operators.ne, "<": operators.lt, "<=": operators.le},
    **{">": operators.gt, ">=": operators.ge, "<<": lambda a, b: a << (b & 63), ">>": lambda a, b: a >> (b & 63)},
}


class Value(NamedTuple):
    """What an expression gives: an operand and its type."""

    type: Type
    operand: Operand


class Assembly:
    """The instructions of one program, as they come."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.loops = 0
        """How many loops the next instruction is in."""
        self._registers = 0

    def emit(self, instruction: Instruction) -> None:
        """One more instruction."""
        instruction.loops = self.loops
        self.instructions.append(instruction)

    def register(self) -> Register:
        """A new register."""
        self._registers += 1
        return Register(self._registers - 1)

    def place(self, label: Label) -> None:
        """Put a label here."""
        self.emit(Instruction("label", label=label))

    def goto(self, label: Label) -> None:
        """Jump."""
        self.emit(Instruction("goto", label=label))

    def move(self, target: Register, operand: Operand) -> None:
        """Set a register."""
        match operand:
            case int():
                if fits(operand):
                    self.emit(Instruction("move", target, (signed(operand),)))
                else:
                    self.emit(Instruction("constant", target, number=operand % 2**64))
            case Register():
                target.twin = target.twin or operand
                operand.twin = operand.twin or target
                self.emit(Instruction("move", target, (operand,)))
            case Address(base, offset):
                self.emit(Instruction("move", target, (base,)))
                if offset:
                    self.emit(Instruction("alu", target, (target, offset), _ALU["+"]))
            case _:
                raise UntranslatableError("a map as a value")

    def in_register(self, operand: Operand) -> Register:
        """The operand in a register, which must not be changed."""
        if isinstance(operand, Register):
            return operand
        target = self.register()
        self.move(target, operand)
        return target

    def simple(self, operand: Operand) -> int | Register:
        """The operand as an instruction can have it: in a register, or a number of 32 bits."""
        return signed(operand) if isinstance(operand, int) and fits(operand) else self.in_register(operand)

    def address(self, operand: Operand) -> Address:
        """A pointer as an address."""
        return operand if isinstance(operand, Address) else Address(self.in_register(operand), 0)

    def load(self, at: Address, type: Type) -> Operand:
        """A number or pointer in memory."""
        target = self.register()
        self.emit(Instruction("load", target, (at.base,), type.size, at.offset))
        if isinstance(type, Integer) and type.signed and type.width < 8:
            return self._sign_extended(target, type.width)
        return target

    def store(self, at: Address, value: Operand, size: int) -> None:
        """Write a number or pointer of `size` bytes to memory."""
        self.emit(Instruction("store", None, (at.base, self.simple(value)), size, at.offset))

    def alu(self, symbol: str, left: Operand, right: Operand) -> Register:
        """An operation on 64 bits."""
        return self._operate("alu", _ALU[symbol], left, right)

    def _operate(self, kind: str, number: int, left: Operand, right: Operand) -> Register:
        right = self.simple(right)
        target = self.register()
        self.move(target, left)
        self.emit(Instruction("alu" if kind == "alu" else "alu32", target, (target, right), number))
        return target

    def _sign_extended(self, register: Register, width: int) -> Register:
        shifted = self.alu("<<", register, 64 - 8 * width)
        return self._operate("alu", ARITHMETIC_SHIFT, shifted, 64 - 8 * width)

    def convert(self, value: Value, to: Type) -> Operand:
        """The operand of a value as another type."""
        operand = value.operand
        if not isinstance(to, Integer) or to == value.type:
            return operand
        if isinstance(operand, int):
            return to.wrap(operand)
        if to.width == 8:
            return operand
        if isinstance(value.type, Integer) and value.type.width < to.width and (to.signed or not value.type.signed):
            return operand
        register = self.in_register(operand)
        if to.signed:
            return self._sign_extended(register, to.width)
        if to.width == 4:
            target = self.register()
            self.emit(Instruction("move32", target, (register,)))
            return target
        return self.alu("&", register, (1 << 8 * to.width) - 1)

    def binary(self, symbol: str, left: Value, right: Value) -> Value:
        """Two values with an operator between them that gives a number."""
        if isinstance(left.type, Pointer) and symbol in "+-":
            return Value(left.type, self.shifted(left, right, -1 if symbol == "-" else 1))
        if isinstance(right.type, Pointer) and symbol == "+":
            return Value(right.type, self.shifted(right, left, 1))
        type = common(left.type, INT if symbol in ("<<", ">>") else right.type)
        a = self.convert(left, type)
        b = right.operand if symbol in ("<<", ">>") else self.convert(right, type)
        if isinstance(a, int) and isinstance(b, int) and symbol in _FOLDED:
            return Value(type, type.wrap(_FOLDED[symbol](a, b)))
        if type.signed and symbol in ("/", "%"):
            raise UntranslatableError("a signed division")
        if isinstance(a, int) and symbol in "+*&|^":
            a, b = b, a
        if b == 0 and symbol in ("+", "-", "|", "^", "<<", ">>") and isinstance(b, int):
            return Value(type, a)
        # These keep what is extended to 64 bits extended; the others must work on 32 bits.
        if type.width == 8 or symbol in "&|^" or symbol == ">>":
            number = ARITHMETIC_SHIFT if symbol == ">>" and type.signed else _ALU[symbol]
            return Value(type, self._operate("alu", number, a, b))
        result = self._operate("alu32", _ALU[symbol], a, b)
        return Value(type, self._sign_extended(result, 4) if type.signed else result)

    def shifted(self, pointer: Value, by: Value, sign: int) -> Operand:
        """A pointer, and so many of what it points to behind it."""
        assert isinstance(pointer.type, Pointer)
        size = pointer.type.to.size
        distance = self.convert(by, S64)
        at = self.address(pointer.operand)
        if isinstance(distance, int):
            return Address(at.base, at.offset + sign * distance * size)
        if size & (size - 1) == 0:
            distance = self.alu("<<", distance, size.bit_length() - 1) if size > 1 else distance
        else:
            distance = self.alu("*", distance, size)
        return Address(self.alu("-" if sign < 0 else "+", at.base, distance), at.offset)

    def compare(self, symbol: str, left: Value, right: Value, label: Label) -> bool | None:
        """Jump to a label if a comparison holds. Of numbers alone, no jump, but whether it holds."""
        type = U64 if isinstance(left.type, Pointer) or isinstance(right.type, Pointer) else None
        type = type or common(left.type, right.type)
        a, b = self.convert(left, type), self.convert(right, type)
        if isinstance(a, int) and isinstance(b, int):
            return bool(_FOLDED[symbol](a, b))
        if isinstance(a, Address) and a.base is FRAME and b == 0:
            return symbol == "!="
        if isinstance(a, int):
            a, b, symbol = b, a, _SWAPPED[symbol]
        sources = (self.in_register(a), self.simple(b))
        self.emit(Instruction("if", None, sources, _JUMPS[type.signed][symbol], label=label))
        return None


def fits(value: int) -> bool:
    """Whether the 64 bits of a number are its lower 32, extended by their sign."""
    return -(2**31) <= signed(value) < 2**31


def signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    return (value + 2**63) % 2**64 - 2**63
