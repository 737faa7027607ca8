"""Tokens → the syntax tree, by recursive descent. Input: the text of a user; output: `nodes`, or a `SpecError`.

    trace         TARGET [ "(" parameters ")" ] [ "(" predicate ")" ] [ "format" { "," value } ]
    argdist       TARGET "(" parameters ")" [ ":" types ":" values [ ":" predicate ] ] [ "#" label ]
    TARGET        [ "p:" | "r:" ] LIBRARY ":" FUNCTION [ "+" offset ]  |  "u:" [ LIBRARY ] ":" [ PROVIDER ":" ] PROBE
    expressions   C's, without assignments, ?: and commas

Parameters touch the name; what stands in parentheses after a space is the predicate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from usdtkit.errors import SpecError
from usdtkit.language import nodes as n
from usdtkit.language.lexer import Token, tokens
from usdtkit.language.typenames import QUALIFIERS, TAGS, is_type_word, may_continue

# How tightly C's binary operators bind.
_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"))
PRECEDENCE = {operator: level for level, row in enumerate((*_LEVELS, ("*", "/", "%")), 1) for operator in row}

MAX_DEPTH = 64  # of parentheses, and of a chain of operators
TARGETS = "LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE"
_KERNEL = "kernel functions and tracepoints are not traced by usdtkit"
_One = TypeVar("_One")
_OFFSET = re.compile(r"\+(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})$")


def parse_trace(text: str) -> n.TraceSpec:
    """What `trace` takes."""
    end = re.match(r"[^ \t(]*", text).end()  # type: ignore[union-attr]  # it matches the empty text as well
    parser = _Parser(text, end)
    declared: tuple[n.Parameter, ...] = parser.parameters() if text[end : end + 1] == "(" else ()
    target, declared = _overload(parse_target(text, 0, end), declared, text[end : parser.token.at])
    if declared and target.kind == "usdt":
        raise SpecError("a USDT probe has no signature", text, end, hint="a space before the ( begins a condition")
    predicate = None
    if parser.take("("):
        predicate = parser.expression()
        if parser.token.kind == "name" and isinstance(predicate, n.Name):
            parser.fail("expected )", hint="a signature stands right behind the name, without a space")
        parser.expect(")")
    format: n.Text | None = None
    values: tuple[n.Node, ...] = ()
    if parser.token.kind == "string":
        token = parser.next()
        format = n.Text(token.data, token.at)
        values = tuple(parser.expression() for _ in iter(lambda: parser.take(","), False))
    if parser.token.kind != "end":
        parser.fail("expected the end", hint='a condition stands in parentheses, then "format", then values')
    return n.TraceSpec(text, target, declared, predicate, format, values)


def parse_distribution(text: str) -> n.DistributionSpec:
    """What `argdist` takes."""
    body, label = text, ""
    if match := _LABEL.match(text):
        body, label = match[1], match[2]
    end = body.find("(")
    if end < 0:
        hint = "parentheses belong to it, also when they are empty: p:c:malloc(size_t size):size_t:size"
        raise SpecError("expected (", text, len(body), hint=hint)
    parser = _Parser(body, end)
    declared = parser.parameters()
    target, declared = _overload(parse_target(text, 0, end), declared, body[end : parser.token.at])
    types: tuple[n.CType, ...] = ()
    values: tuple[n.Node, ...] = ()
    predicate = None
    if parser.take(":"):
        types = parser.several(parser.type)
        if not parser.take(":"):
            parser.fail("expected : and what to collect", hint="after the types come the values: …:size_t:size")
        values_at = parser.token.at
        values = parser.several(parser.expression)
        if len(values) != len(types):
            raise SpecError(f"{len(types)} types, but {len(values)} values", text, values_at)
        if parser.take(":"):
            predicate = parser.expression()
    if parser.token.kind != "end":
        parser.fail("expected the end", hint="TARGET(parameters):types:values:condition#label")
    return n.DistributionSpec(text, target, declared, types, values, predicate, label)


# The label behind # or, as bcc once had it, ; where neither stands in a literal.
_LABEL = re.compile(r"""((?:[^"'#;]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*)[#;](.*)""", re.DOTALL)


def parse_pattern(text: str) -> n.Target:
    """A target by itself, where NAME:NAME can only be a function."""
    target = parse_target(text, 0, len(text))
    if target.kind == "named":
        return n.Target("entry", target.library, target.name, "", target.offset)
    return target


def parse_expression(text: str) -> n.ExpressionSpec:
    """An expression by itself."""
    parser = _Parser(text, 0)
    value = parser.expression()
    if parser.token.kind != "end":
        parser.fail("expected the end")
    return n.ExpressionSpec(text, value)


def parse_target(text: str, start: int, end: int) -> n.Target:
    """What stands from `start` to `end`; the names in it may hold `::`, and wildcards."""
    spelled = text[start:end]
    if re.match(r":[^:]+:[^:]", spelled):  # bcc's way to leave out that it is an entry
        spelled = f"p{spelled}"
    kind, colon, rest = spelled.partition(":")
    if not spelled or not colon:
        said = f"{spelled!r} says no library: {_KERNEL}" if spelled else "expected a target"
        raise SpecError(said, text, start, hint=TARGETS)
    if kind == "t":
        raise SpecError(_KERNEL, text, start, hint="bpftrace and bcc's own tools do that")
    if kind == "u":
        library, *names = rest.split(":")
        if not 1 <= len(names) <= 2 or not all(names):
            raise SpecError(f"{spelled!r} names no USDT probe", text, start, hint="u:LIBRARY:PROVIDER:PROBE")
        return n.Target("usdt", library, names[-1], "".join(names[:-1]), at=start)
    if kind in ("p", "r"):
        library, colon, name = rest.partition(":")
    else:
        library, name = kind, rest
    if not library:
        raise SpecError(_KERNEL, text, start, hint="LIBRARY:FUNCTION, such as c:open")
    if not colon or not name or name.startswith(":"):
        raise SpecError(f"{spelled!r} is no target", text, start, hint=f"{TARGETS}; a C++ name needs its library too")
    offset = 0
    if match := _OFFSET.search(name):
        if kind == "r":
            raise SpecError("a return has no offset", text, end - len(match[0]))
        name, offset = name[: match.start()], int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10)
    whats: dict[str, n.TargetKind] = {"p": "entry", "r": "return"}
    return n.Target(whats.get(kind, "named"), library, name, offset=offset, at=start)


def _overload(
    target: n.Target, declared: tuple[n.Parameter, ...], signature: str
) -> tuple[n.Target, tuple[n.Parameter, ...]]:
    """Types without names behind a C++ name are no signature: they say which of several functions it is."""
    if "::" in target.name and declared and not any(one.name for one in declared):
        return n.Target(target.kind, target.library, target.name + signature.strip(), at=target.at), ()
    return target, declared


class _Parser:
    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._tokens = tokens(text, start)
        self._position = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        return self._tokens[self._position]

    def next(self) -> Token:
        token = self.token
        self._position += token.kind != "end"
        return token

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        found = self.token.text
        raise SpecError(f"{message}, not {found!r}" if found else message, self._text, self.token.at, hint=hint)

    def take(self, operator: str) -> bool:
        """Whether the next token is this operator; then it is gone."""
        if self.token.kind != "operator" or self.token.text != operator:
            return False
        self.next()
        return True

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            self.fail(f"expected {operator}")

    def several(self, one: Callable[[], _One]) -> tuple[_One, ...]:
        """One or more of something, with commas between them."""
        found = [one()]
        while self.take(","):
            found.append(one())
        return tuple(found)

    # Types and signatures

    def type(self) -> n.CType:
        """int, unsigned long, const char *, struct timespec *, std::string &"""
        at = self._position
        name = self._type_name()
        if not name:
            self._position = at
            self.fail("expected a type")
        return n.CType(name, self._pointers())

    def _type_name(self) -> str:
        words: list[str] = []
        while self.token.kind == "name":
            word = self.token.text
            if words and not may_continue(word) and words[-1] not in TAGS:
                break
            self.next()
            if word not in QUALIFIERS:
                words.append(word)
            while self.take("::"):
                words[-1:] = [f"{''.join(words[-1:])}::{self.next().text}"]
        return " ".join(words)

    def _pointers(self) -> int:
        count = 0
        while True:
            if self.take("*") or self.take("&") or self.take("&&"):
                count += 1
            elif self.token.kind == "name" and self.token.text in QUALIFIERS:
                self.next()
            else:
                return count

    def parameters(self) -> tuple[n.Parameter, ...]:
        """( type name, … )"""
        self.expect("(")
        found: list[n.Parameter] = []
        while not self.take(")"):
            if found:
                self.expect(",")
            if self.take("..."):
                self.expect(")")
                break
            found.append(self._parameter())
        return () if found == [n.Parameter(n.CType("void"), "")] else tuple(found)

    def _parameter(self) -> n.Parameter:
        type = self.type()
        if self.take("("):  # of a function: type (*name)(…)
            self.expect("*")
            name = self.next().text if self.token.kind == "name" else ""
            self.expect(")")
            self.parameters()
            return n.Parameter(n.CType("void", 1), name)
        name = self.next().text if self.token.kind == "name" else ""
        pointers = type.pointers
        while self.take("["):
            if self.token.kind == "number":
                self.next()
            self.expect("]")
            pointers += 1
        return n.Parameter(n.CType(type.name, pointers), name)

    # Expressions

    def expression(self, least: int = 1) -> n.Node:
        """An expression of operators that bind at least so tightly."""
        self._enter()
        left = self._unary()
        entered = 1
        while self.token.kind == "operator" and (level := PRECEDENCE.get(self.token.text, 0)) >= least:
            operator = self.next()
            self._enter()
            entered += 1
            left = n.Binary(operator.text, left, self.expression(level + 1), operator.at)
        self._depth -= entered
        if self.token.kind == "operator" and self.token.text in ("=", "?", "["):
            self.fail("there is no such operator here", hint="== compares; * and -> read memory")
        return left

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            hint = f"at most {MAX_DEPTH} operators and parentheses in one another"
            raise SpecError("too deep an expression", self._text, self.token.at, hint=hint)

    def _unary(self) -> n.Node:
        token = self.token
        if token.kind == "operator" and token.text in ("-", "+", "!", "~", "*"):
            self.next()
            self._enter()
            value = self._unary()
            self._depth -= 1
            return value if token.text == "+" else n.Unary(token.text, value, token.at)
        if token.kind == "operator" and token.text == "(" and self._is_cast():
            self.next()
            type = self.type()
            self.expect(")")
            self._enter()
            value = self._unary()
            self._depth -= 1
            return n.Cast(type, value, token.at)
        return self._postfix()

    def _is_cast(self) -> bool:
        """Whether the parenthesis holds a type: it begins with a word for one, or an operand follows it."""
        inside = self._tokens[self._position + 1]
        if inside.kind != "name":
            return False
        if is_type_word(inside.text):
            return True
        at = self._position + 2
        while self._tokens[at].text == "*" and self._tokens[at].kind == "operator":
            at += 1
        closing, after = self._tokens[at], self._tokens[min(at + 1, len(self._tokens) - 1)]
        return closing.text == ")" and after.kind in ("name", "number")

    def _postfix(self) -> n.Node:
        value = self._primary()
        while self.token.kind == "operator" and self.token.text in ("->", "@"):
            operator = self.next()
            field = self.next()
            if field.kind != "name" or (operator.text == "@" and field.text != "user"):
                self._position -= field.kind != "end"
                self.fail("expected the name of a member" if operator.text == "->" else "expected user")
            if operator.text == "->":  # all memory that is read here is the user's: @user says nothing new
                self._enter()
                value = n.Member(value, field.text, operator.at)
        self._depth -= _chain(value)
        return value

    def _primary(self) -> n.Node:
        token = self.token
        if token.kind == "number":
            self.next()
            return n.Number(token.number, token.at)
        if token.kind == "string":
            self.next()
            return n.Text(token.data, token.at)
        if token.kind == "name":
            self.next()
            if self.take("("):
                arguments = () if self.token.text == ")" else self.several(self.expression)
                self.expect(")")
                return n.Call(token.text, arguments, token.at)
            return n.Name(token.text, token.at)
        if self.take("("):
            inner = self.expression()
            self.expect(")")
            return inner
        self.fail("expected a value")


def _chain(value: n.Node) -> int:
    """How many -> follow one another at the top."""
    count = 0
    while isinstance(value, n.Member):
        value, count = value.value, count + 1
    return count
