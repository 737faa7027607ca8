"""The syntax tree → expressions of `usdtkit.bpf`, at one target. Output also: what a return must keep from its entry.

Names mean, in this order: parameters of the signature, arguments that the probe or `usdtkit.signatures` name, `arg1` …,
then what every probe knows. Types are C's where a signature, a cast or a probe says them, else 64 bits without sign;
comparisons go by value, division rounds down, as `usdtkit.bpf.expressions` says.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, cast

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.operands import MAX_OPERANDS
from usdtkit.errors import SpecError, UsageError
from usdtkit.language import nodes as n
from usdtkit.language import printer
from usdtkit.language.typenames import I32, I64, POINTER, STRING, U64, integer_type, is_float, is_text
from usdtkit.model import Argument, HookKind
from usdtkit.signatures.libc import STRUCTURES

_ARGUMENT = re.compile(r"arg([1-9][0-9]?)")
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_CONSTANTS = {"NULL": 0, "true": 1, "false": 0}
# What every probe knows, with or without a $.
_BUILTINS: dict[str, tuple[str, n.CType]] = {
    "pid": ("pid", n.CType("u32")),
    "tgid": ("pid", n.CType("u32")),
    "PID": ("pid", n.CType("u32")),
    "tid": ("tid", n.CType("u32")),
    "uid": ("uid", n.CType("u32")),
    "gid": ("gid", n.CType("u32")),
    "cpu": ("cpu", n.CType("u32")),
    "time": ("time", U64),
    "cgroup": ("cgroup", U64),
    "goroutine": ("goroutine", U64),
    "ip": ("ip", POINTER),
    "caller": ("caller", POINTER),
    "comm": ("comm", STRING),
    "COMM": ("comm", STRING),
}
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "/": operator.floordiv,
    "%": operator.mod,
    "<<": lambda value, by: value << (by & 63),
    ">>": lambda value, by: value >> (by & 63),
}
_STRING_TESTS: dict[str, Callable[[ex.Expression, bytes], ex.Expression]] = {
    "startswith": lambda text, literal: text.startswith(literal),
    "endswith": lambda text, literal: text.endswith(literal),
    "contains": lambda text, literal: text.contains(literal),
    "matches": lambda text, literal: text.matches(literal),
}


@dataclass(frozen=True)
class Value:
    """A value with its C type: as a number, where it is one or has an address, and as text, where it is known to be."""

    type: n.CType
    number: ex.Expression | None = None
    text: ex.Expression | None = None
    is_condition: bool = False


@dataclass
class Lowering:
    """Lowers the expressions of one spec.

    `text` is the spec's, for errors; `arguments` and `parameters` are those of the target. A return has `entry`, the
    lowering of the function's entry: `kept` fills with what `$entry(…)` asks for, and `is_pair` tells whether it, or
    `$latency`, was there, so that the function must be traced from its entry. With `binary`, STRCMP takes
    "{0x6c, 0}" for bytes.
    """

    text: str
    kind: HookKind
    arguments: Sequence[Argument] = ()
    parameters: Sequence[n.Parameter] = ()
    string_size: int = 128
    binary: bool = False
    entry: Lowering | None = None
    kept: dict[str, ex.Expression] = field(default_factory=dict)
    is_pair: bool = False
    _kept_names: dict[tuple[str, str], str] = field(default_factory=dict)

    def condition(self, node: n.Node) -> ex.Expression:
        """What is true where the C expression is not 0."""
        return self._guarded(node, self._truth)

    def number(self, node: n.Node) -> ex.Expression:
        """An integer, or the address of a string."""
        return self._guarded(node, self._number)

    def string(self, node: n.Node) -> ex.Expression:
        """A string: what is known to be one, else what is behind the pointer."""
        return self._guarded(node, self._string)

    def counted(self, node: n.Node) -> ex.Expression:
        """Text or bytes whose length is known: an argument that has one, str(…) or buf(…)."""
        value = self._value(node)
        if value.text is None:
            self._fail(node, f"of {printer.expression(node)} no length is known", "buf(pointer, length)")
        return value.text

    def shown(self, node: n.Node) -> ex.Expression:
        """A value as it looks best by itself: strings as strings, numbers of an enum by name."""
        value = self._value(node)
        found = value.number if value.text is None else value.text
        assert found is not None
        return found

    def has_names(self, node: n.Node) -> bool:
        """Whether a number comes out as a name."""
        return not isinstance(node, n.Text) and self._value(node).type == I32 and self._value(node).text is not None

    def typed(self, node: n.Node, type: n.CType) -> ex.Expression:
        """A value as a field or key of this type."""
        return self._guarded(node, lambda node: self._typed(node, type))

    def type_of(self, node: n.Node) -> n.CType:
        """The C type that a value has by itself."""
        if isinstance(node, n.Call) and node.function == "$entry":
            return self._at_entry(node).type
        return self._value(node).type

    def _guarded(self, node: n.Node, lower: Callable[[n.Node], ex.Expression]) -> ex.Expression:
        try:
            return lower(node)
        except SpecError:
            raise
        except UsageError as error:  # of `expressions`, which knows no places
            self._fail(node, error.message, error.hint)

    def _fail(self, node: n.Node, message: str, hint: str | None = None) -> NoReturn:
        raise SpecError(message, self.text, node.at, hint=hint)

    def _typed(self, node: n.Node, type: n.CType) -> ex.Expression:
        if is_text(type):
            return self._string(node)
        if is_float(type):
            value = self._value(node)
            if value.number is None or not is_float(value.type):
                self._fail(node, "this is no floating-point number")
            return value.number
        width = integer_type(type)
        if width is None:
            self._fail(node, f"there is no type {printer.ctype(type)}", "int, unsigned long, u64, size_t, char * …")
        return self._number(node).cast(cast(ex.IntegerType, width))

    def _number(self, node: n.Node) -> ex.Expression:
        if (kept := self._kept(node, "number")) is not None:
            return kept
        value = self._value(node)
        if value.number is None or is_float(value.type):
            self._fail(node, f"{printer.expression(node)} is no integer")
        return value.number

    def _string(self, node: n.Node) -> ex.Expression:
        if (kept := self._kept(node, "string")) is not None:
            return kept
        value = self._value(node)
        if value.text is not None:
            return value.text
        if value.number is None or value.is_condition or is_float(value.type):
            self._fail(node, f"{printer.expression(node)} is no string, and no pointer to one")
        return ex.cstr(value.number, self.string_size)

    def _truth(self, node: n.Node) -> ex.Expression:
        value = self._value(node)
        if value.is_condition and value.number is not None:
            return value.number
        return self._number(node) != 0

    def _value(self, node: n.Node) -> Value:
        if not isinstance(node, n.Number) and (constant := self._constant(node)) is not None:
            return Value(I64, ex.lift(constant))
        match node:
            case n.Number(number):
                return Value(I64 if number < 2**63 else U64, ex.lift(number))
            case n.Name(name):
                return self._name(node, name)
            case n.Unary():
                return self._unary(node)
            case n.Binary():
                return self._binary(node)
            case n.Cast(type, inner):
                return self._cast(node, type, inner)
            case n.Member(inner, member):
                return self._member(node, inner, member)
            case n.Call(function, arguments):
                return self._call(node, function, arguments)
            case n.Text():
                self._fail(node, "a literal can only be compared with", 'STRCMP("text", value), or value == "text"')

    def _constant(self, node: n.Node) -> int | None:
        """The value of an expression of numbers alone, which C has signed; None for any other."""
        match node:
            case n.Number(number):
                return number
            case n.Unary("-" | "~" as symbol, inner):
                value = self._constant(inner)
                return None if value is None else _wrapped(-value if symbol == "-" else ~value)
            case n.Binary(symbol, left, right) if symbol in _ARITHMETIC:
                one, other = self._constant(left), self._constant(right)
                if one is None or other is None:
                    return None
                if symbol in ("/", "%") and not other:
                    self._fail(node, "a division by 0")
                return _wrapped(_ARITHMETIC[symbol](one, other))
        return None

    # Names

    def _name(self, node: n.Node, name: str) -> Value:
        plain = name.removeprefix("$")
        if name == plain and (argument := self._argument(node, name)):
            return argument
        if name in _CONSTANTS:
            return Value(I32, ex.lift(_CONSTANTS[name]))
        if plain == "retval":
            if self.kind != "return":
                self._fail(node, "only a return has a return value", "r:LIBRARY:FUNCTION")
            return Value(I64, ex.retval)
        if plain == "latency":
            if self.entry is None:
                self._fail(node, "a latency is known where a function returns", "r:LIBRARY:FUNCTION")
            self.is_pair = True
            return Value(U64, ex.latency)
        if plain in _BUILTINS:
            builtin, type = _BUILTINS[plain]
            value = ex.Name(builtin)
            return Value(type, text=value) if is_text(type) else Value(type, value)
        if self.entry is not None and name == plain and self.entry._argument(node, name):
            self._fail(node, f"{name} is gone when the function returns", f"$entry({name}) is what it was at the entry")
        if name == "ctx":
            self._fail(node, "ctx is the registers: it needs one of them", "ctx->dx")
        self._fail(node, f"nothing here is called {name!r}", f"there are: {', '.join(self._known())}")

    def _known(self) -> list[str]:
        """What can be asked for, in the words of a hint."""
        mine = [one.name for one in self.parameters if one.name] + [one.name for one in self.arguments]
        if self.kind == "return":
            return ["retval", "$latency", "$entry(…)", "$pid", "$tid", "$uid", "$comm"]
        return [*dict.fromkeys(mine), *([] if self.kind == "usdt" else ["arg1 …"]), "$pid", "$tid", "$uid", "$comm"]

    def _argument(self, node: n.Node, name: str) -> Value | None:
        """The argument of this name, or arg1 …; None where there is none."""
        if self.kind == "return":
            return None
        for index, parameter in enumerate(self.parameters, 1):
            if parameter.name == name or (name == f"arg{index}" and parameter.name):
                return self._declared(node, index, parameter.type)
        for argument in self.arguments:
            if argument.name == name:
                return self._known_argument(node, argument)
        match = _ARGUMENT.fullmatch(name)
        if match is None:
            return None
        number = int(match[1])
        for argument in self.arguments:
            if argument.operand == number - 1:
                return self._known_argument(node, argument)
        if self.kind == "usdt" or number > MAX_OPERANDS:
            most = len(self.arguments) if self.kind == "usdt" else MAX_OPERANDS
            self._fail(node, f"there is no {name}: at most {most} arguments can be read here")
        return Value(U64, ex.arg(number))

    def _declared(self, node: n.Node, index: int, type: n.CType) -> Value:
        if is_float(type):
            self._fail(node, "floating-point arguments of functions lie where no probe can read them")
        raw = ex.arg(index).cast("u64")
        if is_text(type):
            return Value(type, raw, ex.cstr(raw, self.string_size))
        width = integer_type(type)
        return Value(type, raw if width in (None, "u64") else raw.cast(cast(ex.IntegerType, width)))

    def _known_argument(self, node: n.Node, argument: Argument) -> Value:
        raw = ex.arg(argument.name)
        match argument.type:
            case "unreadable":
                self._fail(node, f"{argument.name} lies where this build puts it out of reach")
            case "str" | "json":
                return Value(STRING, raw.cast("u64"), raw)
            case "bytes":
                return Value(POINTER, raw.cast("u64"), raw)
            case "f32" | "f64":
                return Value(n.CType("double"), raw)
            case "enum":
                return Value(I32, raw.cast("i32"), raw)
            case "pointer":
                return Value(POINTER, raw)
            case "bool":
                return Value(U64, raw, is_condition=True)
            case type:
                return Value(n.CType(type or "u64"), raw)

    # Operators

    def _unary(self, node: n.Unary) -> Value:
        if node.operator == "*":
            return self._memory(node, node.value)
        if node.operator == "!":
            return Value(I32, ~self._truth(node.value), is_condition=True)
        inner = self._number(node.value)
        if node.operator == "-":
            return Value(I64, ex.lift(0) - inner)
        return Value(self._value(node.value).type, ~(inner + 0))  # a condition would be negated, not inverted

    def _binary(self, node: n.Binary) -> Value:
        symbol, left, right = node.operator, node.left, node.right
        if symbol in ("&&", "||"):
            return Value(I32, ex.Binary(symbol[0], self._truth(left), self._truth(right)), is_condition=True)
        if symbol in ("==", "!="):
            for text, literal in ((left, right), (right, left)):
                if isinstance(literal, n.Text):
                    same = self._string(text) == literal.data
                    return Value(I32, same if symbol == "==" else ~same, is_condition=True)
        value = ex.Binary(symbol, self._number(left), self._number(right))
        if symbol in _COMPARISONS:
            return Value(I32, value, is_condition=True)
        return Value(U64, value)

    def _cast(self, node: n.Node, type: n.CType, inner: n.Node) -> Value:
        number = self._number(inner)
        if type.pointers:
            return Value(type, number, ex.cstr(number, self.string_size) if is_text(type) else None)
        width = integer_type(type)
        if width is None:
            self._fail(node, f"there is no type {printer.ctype(type)}", "int, unsigned long, u64, size_t, char * …")
        return Value(type, number.cast(cast(ex.IntegerType, width)))

    def _memory(self, node: n.Node, pointer: n.Node) -> Value:
        type = self.type_of(pointer)
        if not type.pointers:
            hint = f"say what it points to: *(int *){printer.expression(pointer, 11)}"
            self._fail(node, f"{printer.expression(pointer)} is no pointer", hint)
        behind = n.CType(type.name, type.pointers - 1)
        return self._read(node, self._number(pointer), 0, behind)

    def _read(self, node: n.Node, address: ex.Expression, offset: int, type: n.CType) -> Value:
        width = integer_type(type)
        if width is None:
            self._fail(node, f"a {printer.ctype(type)} cannot be read as one number")
        number = ex.deref(address, offset, cast(ex.IntegerType, width))
        return Value(type, number, ex.cstr(number, self.string_size) if is_text(type) else None)

    def _member(self, node: n.Node, inner: n.Node, member: str) -> Value:
        if inner == n.Name("ctx"):
            return Value(U64, ex.Register(member))
        type = self.type_of(inner)
        structure = STRUCTURES.get(type.name.removeprefix("struct ")) if type.pointers == 1 else None
        if structure is None:
            hint = f"known are {', '.join(STRUCTURES)}; else *(int *)(pointer + offset) reads a number"
            self._fail(node, f"what {printer.expression(inner)} points to is not known", hint)
        if member not in structure:
            self._fail(node, f"{type.name} has no {member}", f"its members: {', '.join(structure)}")
        offset, width = structure[member]
        return self._read(node, self._number(inner), offset, n.CType(width))

    # Calls

    def _call(self, node: n.Call, function: str, arguments: tuple[n.Node, ...]) -> Value:
        if function in ("STRCMP", "STRNCMP"):
            return self._compared(node, function, arguments)
        if function in _STRING_TESTS:
            text, literal = self._count(node, arguments, 2, f'{function}(value, "text")')
            test = _STRING_TESTS[function](self._string(text), self._literal(literal))
            return Value(I32, test, is_condition=True)
        if function in ("str", "buf"):
            pointer, *length = self._count(node, arguments, 1 if function == "str" and len(arguments) < 2 else 2)
            address, size = self._number(pointer), self.string_size
            if not length:
                return Value(STRING, address, ex.cstr(address, size))
            bound = self._number(length[0])
            read = ex.cstr(address, size, length=bound) if function == "str" else ex.buffer(address, bound, size)
            return Value(STRING if function == "str" else POINTER, address, read)
        if function == "$entry":
            return Value(self._at_entry(node).type, self._kept(node, "number"))
        known = "STRCMP, STRNCMP, startswith, endswith, contains, matches, str, buf, $entry"
        self._fail(node, f"there is no function {function}", f"there are {known}")

    def _count(self, node: n.Node, arguments: tuple[n.Node, ...], number: int, how: str = "") -> tuple[n.Node, ...]:
        if len(arguments) != number:
            self._fail(node, f"{number} arguments belong here, not {len(arguments)}", how or None)
        return arguments

    def _compared(self, node: n.Node, function: str, arguments: tuple[n.Node, ...]) -> Value:
        how = 'STRCMP("text", value)' if function == "STRCMP" else 'STRNCMP("text", value, length)'
        literal, value, *length = self._count(node, arguments, 2 if function == "STRCMP" else 3, how)
        data = self._literal(literal)
        if self.binary:
            data = self._bytes(literal, data)
            return Value(I32, ex.buffer(self._number(value), len(data), len(data)) == data, is_condition=True)
        if length:
            if not isinstance(length[0], n.Number):
                self._fail(length[0], "the length is a number")
            # As in C: what both are known to end before is compared as a whole.
            if (most := length[0].value) <= len(data):
                return Value(I32, self._string(value).startswith(data[:most]), is_condition=True)
        return Value(I32, self._string(value) == data, is_condition=True)

    def _literal(self, node: n.Node) -> bytes:
        if not isinstance(node, n.Text):
            self._fail(node, "a literal belongs here", '"text"; the value to compare with is the other argument')
        return node.data

    def _bytes(self, node: n.Node, data: bytes) -> bytes:
        try:
            values = [int(word, 0) for word in data.decode("ascii").strip(" {}").split(",")]
            return bytes(values)
        except ValueError:
            self._fail(node, "these are no bytes", '"{0x6c, 0x00}"')

    # What a return keeps of its entry

    def _at_entry(self, node: n.Call) -> Value:
        if self.entry is None:
            self._fail(node, "$entry is for returns", "at an entry the arguments themselves are there")
        return self.entry._value(*self._count(node, node.arguments, 1))

    def _kept(self, node: n.Node, form: str) -> ex.Expression | None:
        """At a return, `$entry(x)`: a number or string that was taken at the entry; None for all else."""
        if not isinstance(node, n.Call) or node.function != "$entry":
            return None
        self._at_entry(node)
        assert self.entry is not None
        (inner,) = node.arguments
        self.is_pair = True
        key = (printer.expression(inner), form)
        if key not in self._kept_names:
            self._kept_names[key] = name = f"entry_{len(self.kept) + 1}"
            self.kept[name] = self.entry.string(inner) if form == "string" else self.entry.number(inner)
        return ex.Name(self._kept_names[key])


def _wrapped(value: int) -> int:
    """As 64 bits with a sign have it; a number above that, which C has without one, stays."""
    return value if -(2**63) <= value < 2**63 else (value + 2**63) % 2**64 - 2**63
