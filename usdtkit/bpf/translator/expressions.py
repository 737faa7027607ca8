"""Expressions and conditions → instructions.

Input: nodes of `syntax`, and the variables of `scopes`. Output: instructions, and what each expression gives; the base
of `calls`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from usdtkit.bpf.translator import kernel
from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.arithmetic import OPPOSITE, Value
from usdtkit.bpf.translator.code import Address, Label, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.scopes import Scopes
from usdtkit.bpf.translator.types import INT, U64, Array, Integer, Pointer, Struct, Type, common

_COMPARISONS = frozenset(OPPOSITE)
_TRUTH = _COMPARISONS | {"&&", "||"}


class Expressions(Scopes, ABC):
    """Lowers expressions."""

    @abstractmethod
    def _call(self, name: str, arguments: Sequence[s.Node]) -> Value:
        """What a call returns."""

    @abstractmethod
    def _statements(self, statements: Sequence[s.Statement]) -> None:
        """Lower the statements of a block."""

    # Conditions.

    def _jump(self, condition: s.Node, label: Label, *, when: bool) -> bool | None:
        """Jump to a label if a condition is `when`. Of one that is known, no jump where none is, and what it is."""
        match condition:
            case s.Unary("!", value):
                known = self._jump(value, label, when=not when)
                return None if known is None else not known
            case s.Binary("&&" | "||" as operator, left, right):
                return self._jump_of_two(operator, left, right, label, when=when)
            case s.Binary(operator, left, right) if operator in _COMPARISONS:
                a = self._value(left)
                symbol = operator if when else OPPOSITE[operator]
                known = self.assembly.compare(symbol, a, self._value(right), label)
            case s.Cast(Integer(8), value) if self._is_truth(value):
                return self._jump(value, label, when=when)
            case _:
                number = self._value(condition)
                known = self.assembly.compare("!=" if when else "==", number, Value(number.type, 0), label)
        if known is None:
            return None
        if known:
            self.assembly.goto(label)
        return known == when

    def _jump_of_two(self, operator: str, left: s.Node, right: s.Node, label: Label, *, when: bool) -> bool | None:
        decides = operator == "||"  # what the left one must be for the right one not to matter
        if decides == when:
            known = self._jump(left, label, when=when)
            if known is decides:
                return decides
            after = self._jump(right, label, when=when)
            return after if known is not None or after is decides else None
        behind = Label()
        known = self._jump(left, behind, when=decides)
        if known is not decides:
            after = self._jump(right, label, when=when)
            known = after if known is not None or after is decides else None
        self.assembly.place(behind)
        return known

    def _is_truth(self, node: s.Node) -> bool:
        return (isinstance(node, s.Binary) and node.operator in _TRUTH) or (
            isinstance(node, s.Unary) and node.operator == "!"
        )

    # Values.

    def _as(self, type: Type, node: s.Node) -> Operand:
        return self.assembly.convert(self._value(node), type)

    def _value(self, node: s.Node) -> Value:
        match node:
            case s.Number(number, to):
                return Value(to, number)
            case s.Name(name):
                return self._named(name)
            case s.Unary(operator, value):
                return self._unary(operator, value, node)
            case s.Binary(operator, left, right):
                if operator in _TRUTH:
                    return self._truth(node)
                a = self._value(left)
                return self.assembly.binary(operator, a, self._value(right))
            case s.Assign():
                return self._assign(node)
            case s.Step():
                return self._step(node)
            case s.Conditional():
                return self._conditional(node)
            case s.Cast(to, value):
                return Value(to, self._as(to, value))
            case s.SizeOf(of):
                return Value(U64, of.size if isinstance(of, Type) else self._type_of(of).size)
            case s.Call(function, arguments):
                return self._call(function, arguments)
            case s.Member() | s.Index():
                return self._read(*self._at(node))
            case s.Block(statements):
                return self._last_of(statements)
        raise UntranslatableError(f"an expression of the kind {type(node).__name__}")

    def _last_of(self, statements: Sequence[s.Statement]) -> Value:
        *before, last = statements
        depth = self._open()
        self._statements(before)
        if not isinstance(last, s.Evaluate):
            raise UntranslatableError("a block without a value")
        value = self._value(last.value)
        self._close(depth)
        return value

    def _named(self, name: str) -> Value:
        variable = self._find(name)
        if variable is None:
            if name in kernel.CONSTANTS:
                number, type = kernel.CONSTANTS[name]
                return Value(type, number)
            raise UntranslatableError(f"the name {name}")
        if variable.is_own and isinstance(variable.operand, Address):
            return self._read(variable.operand, variable.type)
        return Value(variable.type, variable.operand)

    def _read(self, at: Address, type: Type) -> Value:
        if isinstance(type, Array):
            return Value(Pointer(type.of), at)
        if isinstance(type, Struct):
            raise UntranslatableError("a structure as a value")
        return Value(type, self.assembly.load(at, type))

    def _at(self, node: s.Node) -> tuple[Address, Type]:
        """The address of what can be written to, and its type."""
        match node:
            case s.Name(name):
                variable = self._find(name)
                if variable is not None and variable.is_own and isinstance(variable.operand, Address):
                    return variable.operand, variable.type
            case s.Unary("*", pointer):
                return self._behind(self._value(pointer))
            case s.Member(value, name, is_arrow):
                at, type = self._behind(self._value(value)) if is_arrow else self._at(value)
                if isinstance(type, Struct):
                    offset, member = type.member(name)
                    return Address(at.base, at.offset + offset), member
            case s.Index(value, index):
                array = self._value(value)
                at = self.assembly.address(self.assembly.binary("+", array, self._value(index)).operand)
                return self._behind(Value(array.type, at))
        raise UntranslatableError("the address of something that has none")

    def _behind(self, pointer: Value) -> tuple[Address, Type]:
        if not isinstance(pointer.type, Pointer):
            raise UntranslatableError("a number where a pointer is needed")
        return self.assembly.address(pointer.operand), pointer.type.to

    def _unary(self, operator: str, value: s.Node, node: s.Node) -> Value:
        match operator:
            case "&":
                at, type = self._at(value)
                return Value(Pointer(type.of if isinstance(type, Array) else type), at)
            case "*":
                return self._read(*self._at(node))
            case "!":
                return self._truth(node)
            case "-":
                return self.assembly.binary("-", Value(INT, 0), self._value(value))
            case _:
                return self.assembly.binary("^", self._value(value), Value(INT, -1))

    def _truth(self, node: s.Node) -> Value:
        """A condition as 0 or 1."""
        label = Label()
        before = len(self.assembly.instructions)
        result = self.assembly.register()
        self.assembly.move(result, 0)
        known = self._jump(node, label, when=False)
        if known is not None and len(self.assembly.instructions) - before <= 2:
            del self.assembly.instructions[before:]
            return Value(INT, int(known))
        self.assembly.move(result, 1)
        self.assembly.place(label)
        return Value(INT, result)

    def _assign(self, node: s.Assign) -> Value:
        variable = self._find(node.target.name) if isinstance(node.target, s.Name) else None
        if variable is not None and isinstance(variable.operand, Register):
            if not variable.is_own:
                raise UntranslatableError("an assignment to what is constant")
            value = self._value(node.value)
            if node.operator:
                value = self.assembly.binary(node.operator, Value(variable.type, variable.operand), value)
            self.assembly.move(variable.operand, self.assembly.convert(value, variable.type))
            return Value(variable.type, variable.operand)
        if node.operator:
            at, type = self._at(node.target)
            value = self.assembly.binary(node.operator, self._read(at, type), self._value(node.value))
        else:
            value = self._value(node.value)
            at, type = self._at(node.target)
        if isinstance(type, (Struct, Array)):
            raise UntranslatableError("an assignment of structures")
        operand = self.assembly.convert(value, type)
        self.assembly.store(at, operand, type.size)
        return Value(type, operand)

    def _step(self, node: s.Step) -> Value:
        old: Value | None = None
        if node.is_behind:
            value = self._value(node.target)
            copy = self.assembly.register()
            self.assembly.move(copy, value.operand)
            old = Value(value.type, copy)
        new = self._assign(s.Assign("+", node.target, s.Number(node.by, INT)))
        return old or new

    def _conditional(self, node: s.Conditional) -> Value:
        otherwise, end = Label(), Label()
        type = self._common_type(node)
        known = self._jump(node.condition, otherwise, when=False)
        if known is not None:
            self.assembly.place(otherwise)
            return Value(type, self._as(type, node.yes if known else node.no))
        result = self.assembly.register()
        self.assembly.move(result, self._as(type, node.yes))
        self.assembly.goto(end)
        self.assembly.place(otherwise)
        self.assembly.move(result, self._as(type, node.no))
        self.assembly.place(end)
        return Value(type, result)

    def _common_type(self, node: s.Conditional) -> Type:
        yes, no = self._type_of(node.yes), self._type_of(node.no)
        if isinstance(yes, Pointer) or isinstance(no, Pointer):
            return yes if isinstance(yes, Pointer) else no
        return common(yes, no)

    def _type_of(self, node: s.Node) -> Type:
        """The type of an expression, of which nothing is kept."""
        saved = self.assembly.instructions, self._depth, self.stack
        self.assembly.instructions = []
        try:
            if isinstance(node, (s.Name, s.Member, s.Index)):
                variable = self._find(node.name) if isinstance(node, s.Name) else None
                return variable.type if variable is not None else self._at(node)[1]
            return self._value(node).type
        finally:
            self.assembly.instructions, self._depth, self.stack = saved
