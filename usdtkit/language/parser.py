"""Text → the syntax tree, by recursive descent. Input: text from a user. Output: `nodes`, or a `SpecError`.

    trace         PATTERN [ "format" { "," value } ]
    PATTERN       TARGET [ "(" parameters ")" ] [ "(" predicate ")" ]
    argdist       TARGET "(" parameters ")" [ ":" types ":" values [ ":" predicate ] ] [ "#" label ]
    TARGET        [ "p:" | "r:" ] LIBRARY ":" FUNCTION [ "+" offset ]  |  "u:" [ LIBRARY ] ":" [ PROVIDER ":" ] PROBE
    expressions   C's, without assignments, ?: and commas

Each of the names in a target may be in quotes. Parameters follow the name without a space. Parentheses after a space
hold the predicate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from usdtkit.errors import SpecError
from usdtkit.language import nodes
from usdtkit.language.lexer import Token, tokens, unquoted
from usdtkit.language.typenames import QUALIFIERS, TAGS, is_type_word, may_continue
from usdtkit.naming import exact
from usdtkit.records import replace

# C's binary operators by how tightly they bind; the loosest come first.
_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"), ("+", "-"))
PRECEDENCE = {operator: level for level, row in enumerate((*_LEVELS, ("*", "/", "%")), 1) for operator in row}

MAX_DEPTH = 64  # of parentheses, and of a chain of operators
TARGETS = "LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE"
_KERNEL = "usdtkit does not trace kernel functions and tracepoints"
_Item = TypeVar("_Item")
_OFFSET = re.compile(r"\+(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})$")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
# Up to what follows a target: a space or a parenthesis, unless it is in quotes.
_TARGET = re.compile(rf"(?:[^ \t(\"]|{_QUOTED.pattern})*", re.DOTALL)


def parse_trace(text: str) -> nodes.TraceSpec:
    """A spec of `trace`. SpecError."""
    end = _end_of_target(text)
    parser = _Parser(text, end)
    target, declared = parser.signature(parse_target(text, 0, end), end)
    if declared and target.kind == "usdt":
        raise SpecError("a USDT probe has no signature", text, end, hint="a condition begins after a space")
    predicate = parser.predicate()
    format: nodes.Text | None = None
    values: tuple[nodes.Node, ...] = ()
    if parser.token.kind == "string":
        token = parser.next()
        format = nodes.Text(token.data, token.at)
        values = tuple(parser.expression() for _ in iter(lambda: parser.take(","), False))
    if parser.token.kind != "end":
        parser.fail("expected the end", hint='a spec is TARGET (condition) "format", values')
    return nodes.TraceSpec(text, target, declared, predicate, format, values)


def parse_pattern(text: str, *, regexp: bool = False) -> nodes.TraceSpec:
    """A target with or without a condition, for tools that measure its hits. SpecError.

    With `regexp`, the names in the target are regular expressions, and there is no signature.
    """
    at = _condition(text if regexp else _QUOTED.sub(lambda name: "_" * len(name[0]), text))
    spelled = text[:at].rstrip()
    if not regexp and ('"' in spelled or re.fullmatch(r"[^ \t(]*(\(.*\))?", spelled)):
        spec = parse_trace(text)
        if spec.format is not None:
            raise SpecError("only a target and a condition are expected here", text, spec.format.at)
        return spec
    # A name with parameters, or with spaces in its template, is one of C++, which the whole text spells.
    parser = _Parser(text, at)
    spec = nodes.TraceSpec(text, parse_target(text, 0, len(spelled)), (), parser.predicate())
    if parser.token.kind != "end":
        parser.fail("expected the end", hint="a pattern is TARGET (condition)")
    return spec


def _condition(text: str) -> int:
    """Where the condition of a pattern begins: at a parenthesis behind a space, outside of others and of templates."""
    depth = 0
    for at, character in enumerate(text):
        if character == "(":
            name = text[:at]
            is_complete = name.count("<") == name.count(">") or "operator" in name
            if not depth and is_complete and name[-1:] in (" ", "\t"):
                return at
            depth += 1
        elif character == ")":
            depth -= 1
    return len(text)


def parse_distribution(text: str) -> nodes.DistributionSpec:
    """A spec of `argdist`. SpecError."""
    body, label = text, ""
    if match := _LABEL.match(text):
        body, label = match[1], match[2]
    end = _end_of_target(body)
    if body[end : end + 1] != "(":
        hint = "parentheses follow the target, even if they are empty: p:c:malloc(size_t size):size_t:size"
        raise SpecError("expected (", text, len(body), hint=hint)
    parser = _Parser(body, end)
    target, declared = parser.signature(parse_target(text, 0, end), end)
    types: tuple[nodes.CType, ...] = ()
    values: tuple[nodes.Node, ...] = ()
    predicate = None
    if parser.take(":"):
        types = parser.several(parser.type)
        if not parser.take(":"):
            parser.fail("expected : and what to collect", hint="values follow their types: …:size_t:size")
        values_at = parser.token.at
        values = parser.several(parser.expression)
        if len(values) != len(types):
            raise SpecError(f"there are {len(types)} types, but {len(values)} values", text, values_at)
        if parser.take(":"):
            predicate = parser.expression()
    if parser.token.kind != "end":
        parser.fail("expected the end", hint="TARGET(parameters):types:values:condition#label")
    return nodes.DistributionSpec(text, target, declared, types, values, predicate, label)


# A label begins at the first # outside of literals, or at a ; as in early versions of bcc.
_LABEL = re.compile(r"""((?:[^"'#;]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*)[#;](.*)""", re.DOTALL)


def parse_name(text: str) -> str:
    """A name or glob by itself, which may be in quotes, as a pattern. SpecError."""
    if not text.startswith('"'):
        return text
    if not _QUOTED.fullmatch(text):
        raise SpecError("quotes hold a whole name", text, 0)
    return exact(unquoted(text, text, 0).decode("utf-8", "surrogateescape"))


def parse_expression(text: str) -> nodes.ExpressionSpec:
    """An expression by itself. SpecError."""
    parser = _Parser(text, 0)
    value = parser.expression()
    if parser.token.kind != "end":
        parser.fail("expected the end")
    return nodes.ExpressionSpec(text, value)


def parse_target(text: str, start: int, end: int) -> nodes.Target:
    """The target that the text from `start` to `end` spells. SpecError.

    Names in it may have `::` and wildcards. What is in quotes is a name as it is.
    """
    spelled = text[start:end]
    in_quotes: list[re.Match[str]] = []

    def unquoted_name(part: str, *, is_pattern: bool = True) -> str:
        if '"' not in part:
            return part
        at = start + in_quotes[int(part.split('"')[1])].start()
        if part.count('"') != 2 or part[0] != '"' or part[-1] != '"':
            raise SpecError("quotes hold a whole name", text, at, hint='p:app:"main.(*Shop).Sell"')
        name = unquoted(text, in_quotes[int(part[1:-1])][0], at).decode("utf-8", "surrogateescape")
        return exact(name) if is_pattern else name

    def number(match: re.Match[str]) -> str:
        in_quotes.append(match)
        return f'"{len(in_quotes) - 1}"'

    divided = _QUOTED.sub(number, spelled)  # at colons, of which those in quotes do not count
    if re.match(r":[^:]+:[^:]", divided):  # in bcc's language, the p of an entry can be left out
        divided = f"p{divided}"
    kind, colon, rest = divided.partition(":")
    if not spelled or not colon:
        message = f"{spelled!r} does not name a library: {_KERNEL}" if spelled else "expected a target"
        raise SpecError(message, text, start, hint=TARGETS)
    if kind == "t":
        raise SpecError(_KERNEL, text, start, hint="bpftrace and bcc's own tools can trace them")
    if kind == "u":
        library, *names = rest.split(":")
        if not 1 <= len(names) <= 2 or not all(names):
            raise SpecError(f"{spelled!r} does not name a USDT probe", text, start, hint="u:LIBRARY:PROVIDER:PROBE")
        provider, probe = "".join(map(unquoted_name, names[:-1])), unquoted_name(names[-1])
        return nodes.Target("usdt", unquoted_name(library, is_pattern=False), probe, provider, at=start)
    if kind in ("p", "r"):
        library, colon, name = rest.partition(":")
    else:
        library, name = kind, rest
    if not library:
        raise SpecError(_KERNEL, text, start, hint="LIBRARY:FUNCTION, such as c:open")
    if not colon or not name or name.startswith(":") or re.search(r"(?<!:):(?!:)", name):
        raise SpecError(f"{spelled!r} is not a target", text, start, hint=f"{TARGETS}; a C++ name needs a library too")
    offset = 0
    if match := _OFFSET.search(name):
        if kind == "r":
            raise SpecError("a return cannot have an offset", text, end - len(match[0]))
        name, offset = name[: match.start()], int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10)
    kinds: dict[str, nodes.TargetKind] = {"p": "entry", "r": "return"}
    library, name = unquoted_name(library, is_pattern=False), unquoted_name(name)
    if not library or not name:
        raise SpecError("there is no name in these quotes", text, start)
    return nodes.Target(kinds.get(kind, "named"), library, name, offset=offset, at=start)


def _end_of_target(text: str) -> int:
    match = _TARGET.match(text)
    return match.end() if match else 0


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
        spelled = self.token.text
        raise SpecError(f"{message}, not {spelled!r}" if spelled else message, self._text, self.token.at, hint=hint)

    def take(self, operator: str) -> bool:
        """Go past the next token if it is this operator, and say whether it was."""
        if self.token.kind != "operator" or self.token.text != operator:
            return False
        self.next()
        return True

    def expect(self, operator: str) -> None:
        if not self.take(operator):
            self.fail(f"expected {operator}")

    def several(self, parse: Callable[[], _Item]) -> tuple[_Item, ...]:
        """One or more items with commas between them, each read by `parse`."""
        items = [parse()]
        while self.take(","):
            items.append(parse())
        return tuple(items)

    def predicate(self) -> nodes.Node | None:
        """( condition ), if it comes next"""
        if not self.take("("):
            return None
        predicate = self.expression()
        if self.token.kind == "name" and isinstance(predicate, nodes.Name):
            self.fail("expected )", hint="a signature follows the name without a space")
        self.expect(")")
        return predicate

    # Types and signatures

    def type(self) -> nodes.CType:
        """int, unsigned long, const char *, struct timespec *, std::string &"""
        at = self._position
        name = self._type_name()
        if not name:
            self._position = at
            self.fail("expected a type")
        return nodes.CType(name, self._pointers())

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

    def signature(self, target: nodes.Target, end: int) -> tuple[nodes.Target, tuple[nodes.Parameter, ...]]:
        """The parameters at the end of a target. Types without names are a part of its name, and choose an overload."""
        if self._text[end : end + 1] != "(":
            return target, ()
        try:
            declared = self.parameters()
        except SpecError as error:
            if target.kind == "usdt":
                raise
            hint = f"{error.hint}; " if error.hint else ""
            hint += 'a name with parentheses is written in quotes: p:app:"main.(*Shop).Sell"'
            raise SpecError(error.message, error.text, error.at, hint=hint) from None
        if target.kind != "usdt" and declared and not any(parameter.name for parameter in declared):
            return replace(target, name=target.name + exact(self._text[end : self.token.at].strip())), ()
        return target, declared

    def parameters(self) -> tuple[nodes.Parameter, ...]:
        """( type name, … )"""
        self.expect("(")
        parameters: list[nodes.Parameter] = []
        while not self.take(")"):
            if parameters:
                self.expect(",")
            if self.take("..."):
                self.expect(")")
                break
            parameters.append(self._parameter())
        return () if parameters == [nodes.Parameter(nodes.CType("void"), "")] else tuple(parameters)

    def _parameter(self) -> nodes.Parameter:
        type = self.type()
        if self.take("("):  # a pointer to a function: type (*name)(…)
            self.expect("*")
            name = self.next().text if self.token.kind == "name" else ""
            self.expect(")")
            self.parameters()
            return nodes.Parameter(nodes.CType("void", 1), name)
        name = self.next().text if self.token.kind == "name" else ""
        pointers = type.pointers
        while self.take("["):
            if self.token.kind == "number":
                self.next()
            self.expect("]")
            pointers += 1
        return nodes.Parameter(nodes.CType(type.name, pointers), name)

    # Expressions

    def expression(self, min_level: int = 1) -> nodes.Node:
        """An expression whose operators bind at least as tightly as this level of PRECEDENCE."""
        self._enter()
        left = self._unary()
        entered = 1
        while self.token.kind == "operator" and (level := PRECEDENCE.get(self.token.text, 0)) >= min_level:
            operator = self.next()
            self._enter()
            entered += 1
            left = nodes.Binary(operator.text, left, self.expression(level + 1), operator.at)
        self._depth -= entered
        if self.token.kind == "operator" and self.token.text in ("=", "?", "["):
            self.fail("expected another operator", hint="== compares; * and -> read memory")
        return left

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            hint = f"operators and parentheses can be nested {MAX_DEPTH} deep"
            raise SpecError("this expression is nested too deeply", self._text, self.token.at, hint=hint)

    def _unary(self) -> nodes.Node:
        token = self.token
        if token.kind == "operator" and token.text in ("-", "+", "!", "~", "*"):
            self.next()
            self._enter()
            value = self._unary()
            self._depth -= 1
            return value if token.text == "+" else nodes.Unary(token.text, value, token.at)
        if token.kind == "operator" and token.text == "(" and self._is_cast():
            self.next()
            type = self.type()
            self.expect(")")
            self._enter()
            value = self._unary()
            self._depth -= 1
            return nodes.Cast(type, value, token.at)
        return self._postfix()

    def _is_cast(self) -> bool:
        """Whether the parenthesis holds a type: a word for a type begins it, or an operand follows it."""
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

    def _postfix(self) -> nodes.Node:
        value = self._primary()
        while self.token.kind == "operator" and self.token.text in ("->", "@"):
            operator = self.next()
            field = self.next()
            if field.kind != "name" or (operator.text == "@" and field.text != "user"):
                self._position -= field.kind != "end"
                self.fail("expected the name of a member" if operator.text == "->" else "expected user")
            if operator.text == "->":  # @user changes nothing, because all memory that is read is the program's
                self._enter()
                value = nodes.Member(value, field.text, operator.at)
        self._depth -= _chain(value)
        return value

    def _primary(self) -> nodes.Node:
        token = self.token
        if token.kind == "number":
            self.next()
            return nodes.Number(token.number, token.at)
        if token.kind == "string":
            self.next()
            return nodes.Text(token.data, token.at)
        if token.kind == "name":
            self.next()
            if self.take("("):
                arguments = () if self.token.text == ")" else self.several(self.expression)
                self.expect(")")
                return nodes.Call(token.text, arguments, token.at)
            return nodes.Name(token.text, token.at)
        if self.take("("):
            inner = self.expression()
            self.expect(")")
            return inner
        self.fail("expected a value")


def _chain(value: nodes.Node) -> int:
    """How many -> follow one another at the top of a tree."""
    count = 0
    while isinstance(value, nodes.Member):
        value, count = value.value, count + 1
    return count
