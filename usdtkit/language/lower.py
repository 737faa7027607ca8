"""The syntax tree → expressions of `usdtkit.bpf` at one target.

Input: nodes, and what is known of the arguments at the target. Output: expressions, and for a return what it needs from
the entry of its function. `names` says what names stand for. Types are C's if a signature, a cast or a probe states
them, and otherwise 64 bits without a sign. Comparisons and division follow `usdtkit.bpf.expressions`: they compare by
value, and division rounds down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, cast

from usdtkit.bpf import expressions
from usdtkit.bpf.expressions import Expression
from usdtkit.errors import SpecError, UsageError
from usdtkit.language import nodes, printer
from usdtkit.language.constants import DivisionByZero, constant
from usdtkit.language.names import Names, Value
from usdtkit.language.parser import parse_expression
from usdtkit.language.typenames import I32, I64, POINTER, PYFRAME, STRING, U64, integer_type, is_float, is_text
from usdtkit.model import Argument, HookKind
from usdtkit.records import dataclass, field, replace
from usdtkit.signatures.libc import STRUCTURES

_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_STRING_TESTS: dict[str, Callable[[Expression, bytes], Expression]] = {
    "startswith": lambda text, literal: text.startswith(literal),
    "endswith": lambda text, literal: text.endswith(literal),
    "contains": lambda text, literal: text.contains(literal),
    "matches": lambda text, literal: text.matches(literal),
}
_FUNCTIONS = ("STRCMP", "STRNCMP", *_STRING_TESTS, "str", "buf", "$entry")
_TYPES_HINT = "int, unsigned long, u64, size_t, char * …"


@dataclass
class Lowering:
    """Lowers the expressions of one spec.

    `text` is the whole spec, which errors show; `arguments` and `parameters` are those of the target. The lowering of a
    return has `entry`, the lowering of the function's entry. It collects in `kept` what `$entry(…)` asks for, and sets
    `is_pair` when an expression uses `$entry` or `$latency`, because then the function must be traced from its entry.
    With `binary`, STRCMP takes "{0x6c, 0}" for bytes.
    """

    text: str
    kind: HookKind
    arguments: Sequence[Argument] = ()
    parameters: Sequence[nodes.Parameter] = ()
    string_size: int = 128
    binary: bool = False
    entry: Lowering | None = None
    kept: dict[str, Expression] = field(default_factory=dict)
    is_pair: bool = False

    def __post_init__(self) -> None:
        self._names = Names(self.text, self.kind, self.arguments, self.parameters, self.string_size)
        self._kept_names: dict[tuple[str, str], str] = {}

    def condition(self, node: nodes.Node) -> Expression:
        """An expression that is true if the C expression is not 0."""
        return self._guarded(node, self._truth)

    def number(self, node: nodes.Node) -> Expression:
        """An integer, or the address of a string."""
        return self._guarded(node, self._number)

    def number_of(self, text: str) -> Expression:
        """The value of an expression that was given apart from the spec, as `number`."""
        entry = None if self.entry is None else replace(self.entry, text=text)
        apart = replace(self, text=text, entry=entry)
        value = apart.number(parse_expression(text).value)
        self.is_pair |= apart.is_pair
        return value

    def string(self, node: nodes.Node) -> Expression:
        """A string: the value itself if it is one, and otherwise the string that it points to."""
        return self._guarded(node, self._string)

    def counted(self, node: nodes.Node) -> Expression:
        """A string or bytes whose length is known: an argument that has a length, str(…) or buf(…)."""
        value = self._value(node)
        if value.text is None:
            self._fail(node, f"the length of {printer.expression(node)} is not known", "buf(pointer, length)")
        return value.text

    def shown(self, node: nodes.Node) -> Expression:
        """A value in the form that people read best: a string as a string, and a number of an enum as its name."""
        value = self._value(node)
        expression = value.number if value.text is None else value.text
        assert expression is not None
        return expression

    def has_names(self, node: nodes.Node) -> bool:
        """Whether a number is shown as a name."""
        return not isinstance(node, nodes.Text) and self._value(node).type == I32 and self._value(node).text is not None

    def typed(self, node: nodes.Node, type: nodes.CType) -> Expression:
        """A value as a field or key of this type."""
        return self._guarded(node, lambda node: self._typed(node, type))

    def type_of(self, node: nodes.Node) -> nodes.CType:
        """The C type that a value has if nothing casts it."""
        if isinstance(node, nodes.Call) and node.function == "$entry":
            return self._at_entry(node).type
        return self._value(node).type

    def _guarded(self, node: nodes.Node, lower: Callable[[nodes.Node], Expression]) -> Expression:
        try:
            return lower(node)
        except SpecError:
            raise
        except UsageError as error:  # from `expressions`, which does not know the place in the text
            self._fail(node, error.message, error.hint)

    def _fail(self, node: nodes.Node, message: str, hint: str | None = None) -> NoReturn:
        self._names.fail(node, message, hint)

    def _integer_type(self, node: nodes.Node, type: nodes.CType) -> expressions.IntegerType:
        width = integer_type(type)
        if width is None:
            self._fail(node, f"there is no type {printer.ctype(type)}", _TYPES_HINT)
        return cast(expressions.IntegerType, width)

    def _typed(self, node: nodes.Node, type: nodes.CType) -> Expression:
        if is_text(type):
            return self._string(node)
        if type == PYFRAME:
            if self.type_of(node) != PYFRAME:
                self._fail(node, f"{printer.expression(node)} is no function of Python", "pycaller is one")
            return self._string(node)
        if is_float(type):
            value = self._value(node)
            if value.number is None or not is_float(value.type):
                self._fail(node, "this is not a floating-point number")
            return value.number
        width = self._integer_type(node, type)
        return self._number(node).cast(width)

    def _number(self, node: nodes.Node) -> Expression:
        if (kept := self._kept(node, "number")) is not None:
            return kept
        value = self._value(node)
        if value.number is None or is_float(value.type):
            self._fail(node, f"{printer.expression(node)} is not an integer")
        return value.number

    def _string(self, node: nodes.Node) -> Expression:
        if (kept := self._kept(node, "string")) is not None:
            return kept
        value = self._value(node)
        if value.text is not None:
            return value.text
        if value.number is None or value.is_condition or is_float(value.type):
            self._fail(node, f"{printer.expression(node)} is neither a string nor a pointer to one")
        return expressions.cstr(value.number, self.string_size)

    def _truth(self, node: nodes.Node) -> Expression:
        value = self._value(node)
        if value.is_condition and value.number is not None:
            return value.number
        return self._number(node) != 0

    def _value(self, node: nodes.Node) -> Value:
        if not isinstance(node, nodes.Number) and (folded := self._constant(node)) is not None:
            return Value(I64, expressions.lift(folded))
        match node:
            case nodes.Number(number):
                return Value(I64 if number < 2**63 else U64, expressions.lift(number))
            case nodes.Name(name):
                return self._name(node, name)
            case nodes.Unary():
                return self._unary(node)
            case nodes.Binary():
                return self._binary(node)
            case nodes.Cast(type, inner):
                return self._cast(node, type, inner)
            case nodes.Member(inner, member):
                return self._member(node, inner, member)
            case nodes.Call(function, arguments):
                return self._call(node, function, arguments)
            case nodes.Text():
                hint = 'STRCMP("text", value), or value == "text"'
                self._fail(node, "a string literal can only be compared with a value", hint)

    def _constant(self, node: nodes.Node) -> int | None:
        try:
            return constant(node)
        except DivisionByZero as error:
            self._fail(error.node, "this is a division by 0")

    def _name(self, node: nodes.Node, name: str) -> Value:
        plain = name.removeprefix("$")
        if name == plain and (argument := self._names.argument(node, name)):
            return argument
        if plain == "retval":
            if self.kind != "return":
                self._fail(node, "only the return of a function has a return value", "r:LIBRARY:FUNCTION")
            return Value(I64, expressions.retval)
        if plain == "latency":
            if self.entry is None:
                self._fail(node, "only the return of a function has a latency", "r:LIBRARY:FUNCTION")
            self.is_pair = True
            return Value(U64, expressions.latency)
        if (builtin := self._names.builtin(name)) is not None:
            return builtin
        if self.entry is not None and name == plain and self.entry._names.argument(node, name):
            self._fail(
                node, f"{name} cannot be read when the function returns", f"$entry({name}) is its value at the entry"
            )
        if name == "ctx":
            self._fail(node, "ctx means all registers, so name one of them", "ctx->dx")
        self._fail(node, f"nothing here is called {name!r}", f"these names exist: {', '.join(self._names.known())}")

    # Operators

    def _unary(self, node: nodes.Unary) -> Value:
        if node.operator == "*":
            return self._memory(node, node.value)
        if node.operator == "!":
            return Value(I32, ~self._truth(node.value), is_condition=True)
        inner = self._number(node.value)
        if node.operator == "-":
            return Value(I64, expressions.lift(0) - inner)
        # Without the addition, ~ would negate a condition instead of inverting its bits.
        return Value(self._value(node.value).type, ~(inner + 0))

    def _binary(self, node: nodes.Binary) -> Value:
        symbol, left, right = node.operator, node.left, node.right
        if symbol in ("&&", "||"):
            both = expressions.Binary(symbol[0], self._truth(left), self._truth(right))
            return Value(I32, both, is_condition=True)
        if symbol in ("==", "!="):
            for text, literal in ((left, right), (right, left)):
                if isinstance(literal, nodes.Text):
                    same = self._string(text) == literal.data
                    return Value(I32, same if symbol == "==" else ~same, is_condition=True)
        value = expressions.Binary(symbol, self._number(left), self._number(right))
        if symbol in _COMPARISONS:
            return Value(I32, value, is_condition=True)
        return Value(U64, value)

    def _cast(self, node: nodes.Node, type: nodes.CType, inner: nodes.Node) -> Value:
        number = self._number(inner)
        if type.pointers:
            return self._pointer(type, number)
        return Value(type, number.cast(self._integer_type(node, type)))

    def _pointer(self, type: nodes.CType, number: Expression) -> Value:
        return Value(type, number, expressions.cstr(number, self.string_size) if is_text(type) else None)

    def _memory(self, node: nodes.Node, pointer: nodes.Node) -> Value:
        type = self.type_of(pointer)
        if not type.pointers:
            hint = f"a cast states the type that it points to: *(int *){printer.expression(pointer, 11)}"
            self._fail(node, f"{printer.expression(pointer)} is not a pointer", hint)
        return self._read(node, self._number(pointer), 0, nodes.CType(type.name, type.pointers - 1))

    def _read(self, node: nodes.Node, address: Expression, offset: int, type: nodes.CType) -> Value:
        width = integer_type(type)
        if width is None:
            self._fail(node, f"a {printer.ctype(type)} cannot be read as one number")
        return self._pointer(type, expressions.deref(address, offset, cast(expressions.IntegerType, width)))

    def _member(self, node: nodes.Node, inner: nodes.Node, member: str) -> Value:
        if inner == nodes.Name("ctx"):
            return Value(U64, expressions.Register(member))
        type = self.type_of(inner)
        structure = STRUCTURES.get(type.name.removeprefix("struct ")) if type.pointers == 1 else None
        if structure is None:
            hint = f"known are {', '.join(STRUCTURES)}; otherwise *(int *)(pointer + offset) reads a number"
            self._fail(node, f"the members of what {printer.expression(inner)} points to are not known", hint)
        if member not in structure:
            self._fail(node, f"{type.name} has no member {member}", f"its members: {', '.join(structure)}")
        offset, width = structure[member]
        return self._read(node, self._number(inner), offset, nodes.CType(width))

    # Calls

    def _call(self, node: nodes.Call, function: str, arguments: tuple[nodes.Node, ...]) -> Value:
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
                return Value(STRING, address, expressions.cstr(address, size))
            bound = self._number(length[0])
            if function == "str":
                return Value(STRING, address, expressions.cstr(address, size, length=bound))
            return Value(POINTER, address, expressions.buffer(address, bound, size))
        if function == "$entry":
            return Value(self._at_entry(node).type, self._kept(node, "number"))
        self._fail(node, f"there is no function {function}", f"there are {', '.join(_FUNCTIONS)}")

    def _count(
        self, node: nodes.Node, arguments: tuple[nodes.Node, ...], number: int, usage: str = ""
    ) -> tuple[nodes.Node, ...]:
        if len(arguments) != number:
            noun = "argument" if number == 1 else "arguments"
            self._fail(node, f"this takes {number} {noun}, not {len(arguments)}", usage or None)
        return arguments

    def _compared(self, node: nodes.Node, function: str, arguments: tuple[nodes.Node, ...]) -> Value:
        usage = 'STRCMP("text", value)' if function == "STRCMP" else 'STRNCMP("text", value, length)'
        literal, value, *length = self._count(node, arguments, 2 if function == "STRCMP" else 3, usage)
        data = self._literal(literal)
        if self.binary:
            data = self._bytes(literal, data)
            buffer = expressions.buffer(self._number(value), len(data), len(data))
            return Value(I32, buffer == data, is_condition=True)
        if length:
            if not isinstance(length[0], nodes.Number):
                self._fail(length[0], "the length must be a number")
            # As in C, a length beyond the end of the literal compares all of it, with its end.
            if (maximum := length[0].value) <= len(data):
                return Value(I32, self._string(value).startswith(data[:maximum]), is_condition=True)
        return Value(I32, self._string(value) == data, is_condition=True)

    def _literal(self, node: nodes.Node) -> bytes:
        if not isinstance(node, nodes.Text):
            self._fail(node, "expected a string literal", '"text"; the other argument is the value to compare with')
        return node.data

    def _bytes(self, node: nodes.Node, data: bytes) -> bytes:
        try:
            return bytes(int(word, 0) for word in data.decode("ascii").strip(" {}").split(","))
        except ValueError:
            self._fail(node, "this is not a list of bytes", '"{0x6c, 0x00}"')

    # What a return keeps of its entry

    def _at_entry(self, node: nodes.Call) -> Value:
        if self.entry is None:
            self._fail(
                node, "$entry can only be used at a return", "at an entry, write the name of the argument itself"
            )
        return self.entry._value(*self._count(node, node.arguments, 1))

    def _kept(self, node: nodes.Node, form: str) -> Expression | None:
        """For `$entry(x)`, the number or string that was read at the entry; None for all other nodes."""
        if not isinstance(node, nodes.Call) or node.function != "$entry":
            return None
        self._at_entry(node)
        assert self.entry is not None
        (inner,) = node.arguments
        self.is_pair = True
        key = (printer.expression(inner), form)
        if key not in self._kept_names:
            self._kept_names[key] = name = f"entry_{len(self.kept) + 1}"
            self.kept[name] = self.entry.string(inner) if form == "string" else self.entry.number(inner)
        return expressions.Name(self._kept_names[key])
