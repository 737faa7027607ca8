"""One program of a text → instructions over virtual registers.

Input: a `Parser`, and the name of a function. Output: its instructions, with all that it calls in its place. Variables
are in registers, unless they are structures or arrays or their addresses are taken: those are in the stack, where
blocks that do not overlap share room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usdtkit.bpf.translator import kernel
from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.arithmetic import Value
from usdtkit.bpf.translator.calls import Calls
from usdtkit.bpf.translator.code import Address, Instruction, Label, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.parser import Parser
from usdtkit.bpf.translator.scopes import Variable
from usdtkit.bpf.translator.types import INT, S8, Array, Struct, Type
from usdtkit.records import dataclass


@dataclass(eq=False)
class _Frame:
    """A function whose statements are being lowered, into the program itself or into one that calls it."""

    function: s.Function
    end: Label
    result: Register | None  # None at a program itself
    last: s.Statement | None  # its only return, if that is its last statement
    value: Value | None = None


class Lowering(Calls):
    """Lowers one program."""

    def __init__(self, parser: Parser, maps: Mapping[str, tuple[int, kernel.Map]]) -> None:
        super().__init__(parser, maps)
        self._frames: list[_Frame] = []
        self._loops: list[tuple[Label, Label]] = []  # where `break` and `continue` lead

    def program(self, name: str) -> list[Instruction]:
        """The instructions of a function that the kernel calls."""
        function = self._parser.function(name)
        if function is None or not function.parameters:
            raise UntranslatableError(f"{name} is no program")
        # Of what a loop calls, the first parameter is the number of the round, which none of them needs.
        parameter, type = function.parameters[-1]
        context = self.assembly.register()
        self.assembly.emit(Instruction("context", context, number=len(function.parameters)))
        self._frames.append(_Frame(function, Label(), None, None))
        self._scopes.append({parameter: Variable(type, context)})
        self._statements(function.statements)
        self.assembly.emit(Instruction("return", None, (0,)))
        return self.assembly.instructions

    # Variables.

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

    # Functions.

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
