"""Tokens → expressions.

Input: a place in the tokens, and blocks of statements from `parser`, which an expression can contain. Output: nodes of
`syntax`, and the names of variables that a function changes or takes the addresses of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.reader import Reader
from usdtkit.bpf.translator.tokens import Literal, Token
from usdtkit.bpf.translator.types import Type

_LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_PRECEDENCE = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}
_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="})


class Terms(Reader):
    """Reads expressions."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__(tokens)
        self._changed: set[str] = set()
        self._addressed: set[str] = set()

    @abstractmethod
    def _block(self) -> s.Block:
        """Take statements in braces."""

    def _expression(self) -> s.Node:
        target = self._ternary()
        operator = self._peek()
        if not isinstance(operator, str) or operator not in _ASSIGNMENTS:
            return target
        self._at += 1
        if isinstance(target, s.Name):
            self._changed.add(target.name)
        return s.Assign(operator[:-1], target, self._expression())

    def _ternary(self) -> s.Node:
        condition = self._binary(0)
        if not self._take("?"):
            return condition
        yes = self._expression()
        self._expect(":")
        return s.Conditional(condition, yes, self._ternary())

    def _binary(self, level: int) -> s.Node:
        left = self._unary()
        while True:
            operator = self._peek()
            found = _PRECEDENCE.get(operator) if isinstance(operator, str) else None
            if found is None or found < level:
                return left
            self._at += 1
            left = s.Binary(str(operator), left, self._binary(found + 1))

    def _unary(self) -> s.Node:
        token = self._peek()
        if token in ("-", "~", "!", "*", "&", "+"):
            self._at += 1
            value = self._unary()
            if token == "+":
                return value
            if token == "&":
                self._note(value, self._addressed)
            return s.Unary(str(token), value)
        if token in ("++", "--"):
            self._at += 1
            target = self._unary()
            self._note(target, self._changed)
            return s.Step(1 if token == "++" else -1, target, False)
        if token == "sizeof":
            self._at += 1
            if self._peek() == "(" and self._starts_type(1):
                self._at += 1
                type = self._type()
                self._expect(")")
                return s.SizeOf(type)
            return s.SizeOf(self._unary())
        if token == "(" and self._starts_type(1):
            self._at += 1
            type = self._type()
            self._expect(")")
            return s.Cast(type, self._unary())
        return self._postfix()

    def _postfix(self) -> s.Node:
        value = self._primary()
        while True:
            if self._take("["):
                value = s.Index(value, self._expression())
                self._expect("]")
            elif self._peek() in (".", "->"):
                is_arrow = self._next() == "->"
                value = s.Member(value, self._name(), is_arrow)
            elif self._peek() == "(" and (function := _called(value)):
                value = s.Call(function, self._arguments())
            elif self._peek() in ("++", "--"):
                self._note(value, self._changed)
                value = s.Step(1 if self._next() == "++" else -1, value, True)
            else:
                return value

    def _arguments(self) -> list[s.Node]:
        self._expect("(")
        arguments: list[s.Node] = []
        while not self._take(")"):
            arguments.append(self._expression())
            self._take(",")
        return arguments

    def _primary(self) -> s.Node:
        token = self._peek()
        if isinstance(token, Literal):
            self._at += 1
            return s.Number(token.value, token.type)
        if token == "(" and self._peek(1) == "{":
            self._at += 1
            block = self._block()
            self._expect(")")
            return block
        if token == "(":
            return self._parenthesised()
        return s.Name(self._name())

    def _note(self, target: s.Node, names: set[str]) -> None:
        while isinstance(target, (s.Member, s.Index)) and not (isinstance(target, s.Member) and target.is_arrow):
            target = target.value
        if isinstance(target, s.Name):
            names.add(target.name)

    def _parenthesised(self) -> s.Node:
        self._expect("(")
        value = self._expression()
        self._expect(")")
        return value

    def _constant(self) -> int:
        value = evaluate(self._ternary())
        if value is None:
            raise UntranslatableError(f"{self._around()}, where a constant is expected")
        return value


def _called(value: s.Node) -> str:
    """The name of what is called: a function, or the method of a map."""
    if isinstance(value, s.Name):
        return value.name
    if isinstance(value, s.Member) and not value.is_arrow and isinstance(value.value, s.Name):
        return f"{value.value.name}.{value.name}"
    return ""


def evaluate(node: s.Node) -> int | None:
    """The value of an expression of numbers, such as the size of an array; None of any other."""
    match node:
        case s.Number(value):
            return value
        case s.SizeOf(of) if isinstance(of, Type):
            return of.size
        case s.Unary("-", inner) if (number := evaluate(inner)) is not None:
            return -number
        case s.Binary(operator, left, right):
            a, b = evaluate(left), evaluate(right)
            if a is None or b is None:
                return None
            match operator:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case "/" if b:
                    return a // b
                case "<<" if 0 <= b < 64:
                    return a << b
    return None
