"""Names in an expression → the values that they stand for at one target.

Input: a name, and what is known of the arguments at the target. Output: `Value`s for `lower`. A name is looked up in
this order: parameters of the signature, arguments that the probe or `usdtkit.signatures` name, `arg1` and so on, and
then what every probe has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn, cast

from usdtkit.bpf import expressions
from usdtkit.bpf.operands import MAX_OPERANDS
from usdtkit.errors import SpecError
from usdtkit.language import nodes
from usdtkit.language.typenames import I32, POINTER, PYFRAME, STRING, U64, integer_type, is_float, is_text
from usdtkit.model import Argument, HookKind
from usdtkit.records import dataclass

_ARGUMENT = re.compile(r"arg([1-9][0-9]?)")
_CONSTANTS = {"NULL": 0, "true": 1, "false": 0}
_U32 = nodes.CType("u32")
# What every probe has. A $ may stand before each of these names.
_BUILTINS: dict[str, tuple[str, nodes.CType]] = {
    "pid": ("pid", _U32),
    "tgid": ("pid", _U32),
    "PID": ("pid", _U32),
    "tid": ("tid", _U32),
    "uid": ("uid", _U32),
    "gid": ("gid", _U32),
    "cpu": ("cpu", _U32),
    "time": ("time", U64),
    "cgroup": ("cgroup", U64),
    "goid": ("goid", U64),
    "goroutine": ("goid", U64),
    "ip": ("ip", POINTER),
    "caller": ("caller", POINTER),
    "pycaller": ("pycaller", PYFRAME),
    "comm": ("comm", STRING),
    "COMM": ("comm", STRING),
}


@dataclass(frozen=True)
class Value:
    """A value with its C type.

    `number` is the value as a number, or its address; `text` is the value as a string or as bytes. Either may be None.
    """

    type: nodes.CType
    number: expressions.Expression | None = None
    text: expressions.Expression | None = None
    is_condition: bool = False


@dataclass
class Names:
    """The names that mean something at one target. `text` is the whole spec, which errors show."""

    text: str
    kind: HookKind
    arguments: Sequence[Argument]
    parameters: Sequence[nodes.Parameter]
    string_size: int

    def fail(self, node: nodes.Node, message: str, hint: str | None = None) -> NoReturn:
        """Raise the error that marks the place of a node."""
        raise SpecError(message, self.text, node.at, hint=hint)

    def known(self) -> list[str]:
        """The names that are known here, as the words of a hint."""
        if self.kind == "return":
            return ["retval", "$latency", "$entry(…)", "$pid", "$tid", "$uid", "$comm"]
        named = [parameter.name for parameter in self.parameters if parameter.name]
        named += [argument.name for argument in self.arguments]
        return [*dict.fromkeys(named), *([] if self.kind == "usdt" else ["arg1 …"]), "$pid", "$tid", "$uid", "$comm"]

    def argument(self, node: nodes.Node, name: str) -> Value | None:
        """The argument of this name, or None if there is none."""
        if self.kind == "return":
            return None
        for index, parameter in enumerate(self.parameters, 1):
            if parameter.name == name or (name == f"arg{index}" and parameter.name):
                return self._parameter(node, index, parameter.type)
        for argument in self.arguments:
            if argument.name == name:
                return self._known_argument(node, argument)
        match = _ARGUMENT.fullmatch(name)
        return None if match is None else self._numbered(node, name, int(match[1]))

    def builtin(self, name: str) -> Value | None:
        """A constant, or what every probe has; None if this is the name of neither."""
        if name in _CONSTANTS:
            return Value(I32, expressions.lift(_CONSTANTS[name]))
        if (described := _BUILTINS.get(name.removeprefix("$"))) is None:
            return None
        value = expressions.Name(described[0])
        return Value(described[1], text=value) if described[1] in (STRING, PYFRAME) else Value(described[1], value)

    def _numbered(self, node: nodes.Node, name: str, number: int) -> Value:
        for argument in self.arguments:
            if argument.operand == number - 1:
                return self._known_argument(node, argument)
        if self.kind == "usdt" or number > MAX_OPERANDS:
            maximum = len(self.arguments) if self.kind == "usdt" else MAX_OPERANDS
            self.fail(node, f"there is no {name}: at most {maximum} arguments can be read here")
        return Value(U64, expressions.arg(number))

    def _parameter(self, node: nodes.Node, index: int, type: nodes.CType) -> Value:
        if is_float(type):
            self.fail(node, "floating-point arguments of functions are in registers that a probe cannot read")
        raw = expressions.arg(index).cast("u64")
        if is_text(type):
            return Value(type, raw, expressions.cstr(raw, self.string_size))
        width = integer_type(type)
        return Value(type, raw if width in (None, "u64") else raw.cast(cast(expressions.IntegerType, width)))

    def _known_argument(self, node: nodes.Node, argument: Argument) -> Value:
        raw = expressions.arg(argument.name)
        match argument.type:
            case "unreadable":
                self.fail(node, f"this build keeps {argument.name} in a place that a probe cannot read")
            case "str" | "json":
                return Value(STRING, raw.cast("u64"), raw)
            case "bytes":
                return Value(POINTER, raw.cast("u64"), raw)
            case "f32" | "f64":
                return Value(nodes.CType("double"), raw)
            case "enum":
                return Value(I32, raw.cast("i32"), raw)
            case "pointer":
                return Value(POINTER, raw)
            case "bool":
                return Value(U64, raw, is_condition=True)
            case type:
                return Value(nodes.CType(type or "u64"), raw)
