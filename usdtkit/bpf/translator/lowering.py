"""One program of a text → instructions over virtual registers.

Input: a `Parser`, and the name of a function. Output: its instructions, with all that it calls in its place. Variables
are in registers, unless they are structures or arrays or their addresses are taken: those are in the stack, where
blocks that do not overlap share room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usdtkit.bpf import uapi
from usdtkit.bpf.translator import kernel
from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.arithmetic import OPPOSITE, Assembly, Value
from usdtkit.bpf.translator.code import FRAME, Address, Instruction, Label, MapReference, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.parser import Parser
from usdtkit.bpf.translator.types import INT, S8, S64, U64, VOID, Array, Integer, Pointer, Struct, Type, common
from usdtkit.records import NamedTuple, dataclass

_COMPARISONS = frozenset(OPPOSITE)
_TRUTH = _COMPARISONS | {"&&", "||"}
STACK_SIZE = 512


class Variable(NamedTuple):
    """Where a variable is: at an address, in a register of its own, or what it always equals."""

    type: Type
    operand: Operand
    is_own: bool = False


@dataclass(eq=False)
class _Frame:
    """A function whose statements are being lowered, into the program itself or into one that calls it."""

    function: s.Function
    end: Label
    result: Register | None  # None at a program itself
    last: s.Statement | None  # its only return, if that is its last statement
    value: Value | None = None


class Lowering:
    """Lowers one program. `maps` are those of the text, with their indexes in the bytecode."""

    def __init__(self, parser: Parser, maps: Mapping[str, tuple[int, kernel.Map]]) -> None:
        self._parser = parser
        self._maps = maps
        self._scopes: list[dict[str, Variable]] = []
        self._frames: list[_Frame] = []
        self._loops: list[tuple[Label, Label]] = []  # where `break` and `continue` lead
        self._depth = 0
        self.stack = 0
        """Bytes of the stack that variables take."""
        self.assembly = Assembly()

    def program(self, name: str) -> list[Instruction]:
        """The instructions of a function that the kernel calls."""
        function = self._parser.function(name)
        if function is None or len(function.parameters) != 1:
            raise UntranslatableError(f"{name} is no program")
        [(parameter, type)] = function.parameters
        context = self.assembly.register()
        self.assembly.emit(Instruction("context", context))
        self._frames.append(_Frame(function, Label(), None, None))
        self._scopes.append({parameter: Variable(type, context)})
        self._statements(function.statements)
        self.assembly.emit(Instruction("return", None, (0,)))
        return self.assembly.instructions

    # Variables.

    def _find(self, name: str) -> Variable | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
            if "" in scope:  # the outermost one of a function
                break
        return None

    def _allocate(self, size: int) -> Address:
        self._depth += (size + 7) // 8 * 8
        self.stack = max(self.stack, self._depth)
        if self._depth > STACK_SIZE:
            raise UntranslatableError("variables that take more than the stack of 512 bytes")
        return Address(FRAME, -self._depth)

    def _declare(self, declared: s.Declare) -> None:
        name, type, function = declared.name, declared.type, self._frames[-1].function
        if isinstance(type, (Struct, Array)) or name in function.addressed:
            address = self._allocate(type.size)
            if declared.value is not None:
                self._initialise(address, type, declared.value)
            self._scopes[-1][name] = Variable(type, address, True)
            return
        value = None if declared.value is None else self._as(type, declared.value)
        if name in function.changed or value is None:
            register = self.assembly.register()
            if value is not None:
                self.assembly.move(register, value)
            self._scopes[-1][name] = Variable(type, register, True)
        else:
            # A variable that changes is not the same as what it was now.
            if self._is_changing(value):
                copy = self.assembly.register()
                self.assembly.move(copy, value)
                value = copy
            self._scopes[-1][name] = Variable(type, value)

    def _is_changing(self, operand: Operand) -> bool:
        register = operand.base if isinstance(operand, Address) else operand
        return isinstance(register, Register) and any(
            variable.is_own and variable.operand is register for scope in self._scopes for variable in scope.values()
        )

    def _initialise(self, at: Address, type: Type, value: s.Node) -> None:
        if not isinstance(value, s.Initialiser):
            if isinstance(type, Struct):
                raise UntranslatableError("an assignment of structures")
            self.assembly.store(at, self._as(type, value), type.size)
            return
        parts = self._parts(type, value)
        if sum(part.size for _, part, _ in parts) < type.size:
            for offset in range(0, type.size, 8):
                self.assembly.store(Address(at.base, at.offset + offset), 0, 8)
        for offset, part, node in parts:
            self.assembly.store(Address(at.base, at.offset + offset), self._as(part, node), part.size)

    def _parts(self, type: Type, value: s.Initialiser) -> list[tuple[int, Type, s.Node]]:
        if isinstance(type, Array):
            size = type.of.size
            return [(size * index, type.of, node) for index, (_, node) in enumerate(value.values)]
        if not isinstance(type, Struct):
            raise UntranslatableError("a number in braces")
        return [(*type.member(name), node) for name, node in value.values]

    # Statements.

    def _statements(self, statements: Sequence[s.Statement]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: s.Statement) -> None:
        match statement:
            case s.Declare():
                self._declare(statement)
            case s.Evaluate(value):
                self._evaluate(value)
            case s.Block(statements):
                depth = self._open()
                self._statements(statements)
                self._close(depth)
            case s.If():
                self._if(statement)
            case s.For():
                self._for(statement)
            case s.Switch():
                self._switch(statement)
            case s.Return(value):
                self._return(statement, value)
            case s.Leave(word):
                if not self._loops:
                    raise UntranslatableError(f"{word} outside of a loop")
                self.assembly.goto(self._loops[-1][word == "continue"])
            case s.Pin(name):
                variable = self._find(name)
                if variable is not None and isinstance(variable.operand, Register):
                    variable.operand.is_pinned = True

    def _open(self) -> int:
        self._scopes.append({})
        return self._depth

    def _close(self, depth: int) -> None:
        self._scopes.pop()
        self._depth = depth

    def _evaluate(self, value: s.Node) -> None:
        if isinstance(value, s.Block):
            self._statement(value)
        elif isinstance(value, s.Call) and value.function == "__sync_fetch_and_add":
            self._add_atomically(value.arguments)
        else:
            self._value(value)

    def _if(self, statement: s.If) -> None:
        otherwise, end = Label(), Label()
        holds = self._jump(statement.condition, otherwise, when=False)
        if holds is not False:
            self._statement(statement.yes)
        if statement.no is None or holds is True:
            self.assembly.place(otherwise)
            return
        if holds is None:
            self.assembly.goto(end)
        self.assembly.place(otherwise)
        self._statement(statement.no)
        self.assembly.place(end)

    def _for(self, statement: s.For) -> None:
        depth = self._open()
        self._statements(statement.first)
        again, following, end = Label(), Label(), Label()
        self.assembly.loops += 1
        self.assembly.place(again)
        holds = None if statement.condition is None else self._jump(statement.condition, end, when=False)
        if holds is not False:
            self._loops.append((end, following))
            self._statement(statement.body)
            self._loops.pop()
            self.assembly.place(following)
            if statement.step is not None:
                self._evaluate(statement.step)
            self.assembly.goto(again)
        self.assembly.loops -= 1
        self.assembly.place(end)
        self._close(depth)

    def _switch(self, statement: s.Switch) -> None:
        value = self._value(statement.value)
        end, labels = Label(), [Label() for _ in statement.cases]
        default = end
        for (number, _), label in zip(statement.cases, labels, strict=True):
            if number is None:
                default = label
            elif self.assembly.compare("==", value, Value(INT, number), label):
                self.assembly.goto(label)
        self.assembly.goto(default)
        self._loops.append((end, end))
        for position, inner in enumerate([*statement.body, None]):
            for (_, begin), label in zip(statement.cases, labels, strict=True):
                if begin == position:
                    self.assembly.place(label)
            if inner is not None:
                self._statement(inner)
        self._loops.pop()
        self.assembly.place(end)

    def _return(self, statement: s.Return, value: s.Node | None) -> None:
        frame = self._frames[-1]
        if frame.result is None:
            self.assembly.emit(Instruction("return", None, (self.assembly.simple(self._as(INT, value or _ZERO)),)))
        elif value is None:
            self.assembly.goto(frame.end)
        elif statement is frame.last:
            frame.value = Value(frame.function.result, self._as(frame.function.result, value))
        else:
            self.assembly.move(frame.result, self._as(frame.function.result, value))
            if statement is not frame.function.statements[-1]:
                self.assembly.goto(frame.end)

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

    # Expressions.

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

    # Calls.

    def _call(self, name: str, arguments: Sequence[s.Node]) -> Value:
        if name == "PARAMETER":
            [number] = arguments
            if not isinstance(number, s.Number):
                raise UntranslatableError("a parameter without a number")
            result = self.assembly.register()
            self.assembly.emit(Instruction("parameter", result, number=number.value))
            return Value(U64, result)
        map, _, method = name.partition(".")
        if method:
            return self._method(map, method, arguments)
        if (function := self._parser.function(name)) is not None:
            return self._inline(function, arguments)
        if name not in kernel.HELPERS:
            raise UntranslatableError(f"a call of {name}")
        helper = kernel.HELPERS[name]
        return self._helper(helper, [self._value(argument).operand for argument in arguments])

    def _helper(self, helper: kernel.Helper, operands: Sequence[Operand]) -> Value:
        if helper.sized >= 0 and isinstance(size := operands[helper.sized], Register):
            size.is_pinned = True
        result = self.assembly.register()
        self.assembly.emit(Instruction("call", result, operands, helper.number))
        return Value(helper.result, result)

    def _method(self, map: str, method: str, arguments: Sequence[s.Node]) -> Value:
        if map not in self._maps:
            raise UntranslatableError(f"the map {map}")
        index, described = self._maps[map]
        this, given = MapReference(index), [self._value(argument).operand for argument in arguments]
        match method:
            case "lookup":
                return self._helper(kernel.Helper(uapi.MAP_LOOKUP, described.pointer), [this, *given])
            case "update" | "insert":
                flags = kernel.ANY if method == "update" else kernel.NO_EXIST
                return self._helper(kernel.Helper(kernel.MAP_UPDATE, S64), [this, *given, flags])
            case "delete":
                return self._helper(kernel.Helper(kernel.MAP_DELETE, S64), [this, *given])
            case "ringbuf_reserve":
                return self._helper(kernel.Helper(kernel.RING_RESERVE, Pointer(VOID)), [this, *given, 0])
            case "ringbuf_submit" | "ringbuf_discard":
                number = kernel.RING_SUBMIT if method == "ringbuf_submit" else kernel.RING_DISCARD
                return self._helper(kernel.Helper(number, VOID), given)
        raise UntranslatableError(f"{map}.{method}()")

    def _add_atomically(self, arguments: Sequence[s.Node]) -> None:
        pointer, amount = arguments
        at, type = self._behind(self._value(pointer))
        if type.size not in (4, 8):
            raise UntranslatableError("an atomic addition of less than 4 bytes")
        value = self.assembly.in_register(self._as(type, amount))
        self.assembly.emit(Instruction("atomic", None, (at.base, value), type.size, at.offset))

    def _inline(self, function: s.Function, arguments: Sequence[s.Node]) -> Value:
        if any(frame.function is function for frame in self._frames):
            raise UntranslatableError("recursion")
        scope: dict[str, Variable] = {}
        depth = self._depth
        for (name, type), argument in zip(function.parameters, arguments, strict=True):
            operand = self._as(type, argument)
            if name in function.addressed:
                address = self._allocate(type.size)
                self.assembly.store(address, operand, type.size)
                scope[name] = Variable(type, address, True)
            elif name in function.changed:
                register = self.assembly.register()
                self.assembly.move(register, operand)
                scope[name] = Variable(type, register, True)
            else:
                scope[name] = Variable(type, operand)
        last = function.statements[-1] if function.statements else None
        frame = _Frame(function, Label(), self.assembly.register(), last if _returns(function) == 1 else None)
        self._frames.append(frame)
        scope[""] = Variable(S8, 0)  # where a search for a name ends
        self._scopes.append(scope)
        self._statements(function.statements)
        self._close(depth)
        self._frames.pop()
        if frame.value is not None:
            return frame.value
        self.assembly.place(frame.end)
        assert frame.result is not None
        return Value(function.result, frame.result)


_ZERO = s.Number(0, INT)


def _returns(function: s.Function) -> int:
    """How many statements of a function end it."""
    found = 0
    waiting: list[s.Statement | None] = [*function.statements]
    while waiting:
        match waiting.pop():
            case s.Return():
                found += 1
            case s.Block(statements) | s.Switch(body=statements):
                waiting += statements
            case s.If(_, yes, no):
                waiting += [yes, no]
            case s.For(first, _, _, body):
                waiting += [*first, body]
    return found
