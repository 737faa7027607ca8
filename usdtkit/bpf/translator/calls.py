"""Calls → instructions: of helpers of the kernel, of methods of maps, and of functions of the text, in their place.

Input: names and arguments, and the numbers of `kernel`. Output: instructions, and what the call returns; the base of
`lowering`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from usdtkit.bpf import uapi
from usdtkit.bpf.translator import kernel
from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.arithmetic import Value
from usdtkit.bpf.translator.code import Instruction, MapReference, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.expressions import Expressions
from usdtkit.bpf.translator.parser import Parser
from usdtkit.bpf.translator.types import S64, U64, VOID, Pointer


class Calls(Expressions):
    """Lowers calls. `maps` are those of the text, with their numbers in the bytecode."""

    def __init__(self, parser: Parser, maps: Mapping[str, tuple[int, kernel.Map]]) -> None:
        super().__init__()
        self._parser = parser
        self._maps = maps

    @abstractmethod
    def _inline(self, function: s.Function, arguments: Sequence[s.Node]) -> Value:
        """Lower a function of the text in the place of its call."""

    def _call(self, name: str, arguments: Sequence[s.Node]) -> Value:
        if name in kernel.FILLED:
            [number] = arguments
            if not isinstance(number, s.Number):
                raise UntranslatableError(f"{name} without a number")
            result = self.assembly.register()
            self.assembly.emit(Instruction("filled", result, number=number.value, offset=kernel.FILLED[name]))
            return Value(U64, result)
        if name == "EVENTS_QUERY":
            index, _ = self._maps["events"]
            asked = [self._value(argument).operand for argument in arguments]
            return self._helper(kernel.Helper(kernel.RING_QUERY, U64), [MapReference(index), *asked])
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
