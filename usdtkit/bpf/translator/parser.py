"""Tokens → the declarations and functions of a program.

Input: what `tokens` gives. Output: `Parser`, which knows structures, maps and functions by name. A function is parsed
when it is first asked for, because a program uses few of those that stand at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.tokens import Literal, Token
from usdtkit.bpf.translator.types import NAMED, U32, U64, Array, Pointer, Struct, Type
from usdtkit.records import NamedTuple

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
_QUALIFIERS = frozenset({"const", "volatile", "static", "inline", "__always_inline"})
_WORDS = _QUALIFIERS | {"struct", "union", "unsigned", "signed"}


class MapDeclaration(NamedTuple):
    """A map as one of bcc's macros declares it: the macro, and its arguments, types as types."""

    macro: str
    arguments: tuple[Type | int | str, ...]


class Parser:
    """The declarations of a text, by name. UntranslatableError of what is not among the C that our programs have."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.structs: dict[str, Struct] = {}
        self.maps: dict[str, MapDeclaration] = {}
        self.programs: list[str] = []
        """The functions that are programs of their own, in the order of the text."""
        self._bodies: dict[str, int] = {}
        self._functions: dict[str, s.Function] = {}
        self._tokens = tokens
        self._at = 0
        self._changed: set[str] = set()
        self._addressed: set[str] = set()
        while self._at < len(tokens):
            self._top_level()

    def function(self, name: str) -> s.Function | None:
        """The function of that name, or None where the text has none."""
        if name not in self._bodies:
            return None
        if name not in self._functions:
            self._at = self._bodies[name]
            self._functions[name] = self._function()
        return self._functions[name]

    # Tokens.

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise UntranslatableError(f"{self._around()}, where {token!r} is expected")

    def _name(self) -> str:
        token = self._next()
        if not isinstance(token, str) or not token.isidentifier():
            self._at -= 1
            raise UntranslatableError(f"{self._around()}, where a name is expected")
        return token

    def _around(self) -> str:
        near = self._tokens[max(0, self._at - 5) : self._at + 5]
        return " ".join(str(token.value) if isinstance(token, Literal) else token for token in near)

    def _skip_braces(self) -> None:
        self._expect("{")
        depth = 1
        while depth:
            token = self._next()
            if token == "":
                raise UntranslatableError("a function without its closing brace")
            depth += (token == "{") - (token == "}")

    # Declarations.

    def _top_level(self) -> None:
        token = self._peek()
        if isinstance(token, str) and token.startswith("BPF_"):
            self._map()
            return
        begin, is_static = self._at, token == "static"
        type = self._type()
        if self._take(";"):  # a structure
            return
        name = self._declarator(type)[0]
        if self._peek() != "(":
            raise UntranslatableError(f"a variable outside of functions, {name}")
        while self._next() != ")":
            if self._peek() == "":
                raise UntranslatableError(f"{name} is no function")
        self._skip_braces()
        self._bodies[name] = begin
        if not is_static:
            self.programs.append(name)

    def _map(self) -> None:
        macro = self._name()
        self._expect("(")
        arguments: list[Type | int | str] = []
        while not self._take(")"):
            token = self._peek()
            if self._starts_type():
                arguments.append(self._type())
            elif isinstance(token, Literal):
                arguments.append(token.value)
                self._at += 1
            else:
                arguments.append(str(self._next()))
            self._take(",")
        self._expect(";")
        names = [argument for argument in arguments if isinstance(argument, str) and argument.isidentifier()]
        if not names:
            raise UntranslatableError(f"{macro} without a name")
        self.maps[names[0]] = MapDeclaration(macro, tuple(arguments))

    def _starts_type(self, ahead: int = 0) -> bool:
        token = self._peek(ahead)
        return isinstance(token, str) and (token in NAMED or token in _WORDS)

    def _type(self) -> Type:
        type: Type | None = None
        unsigned = False
        while True:
            token = self._peek()
            if token in _QUALIFIERS:
                self._at += 1
            elif token in ("unsigned", "signed"):
                self._at += 1
                unsigned = unsigned or token == "unsigned"
            elif token in ("struct", "union") and type is None:
                self._at += 1
                type = self._struct(is_union=token == "union")
            elif isinstance(token, str) and token in NAMED and (type is None or token in ("long", "int")):
                self._at += 1
                type = NAMED[token] if type is None or token == "long" else type
            else:
                break
        if unsigned:
            type = U64 if type == NAMED["long"] else U32 if type in (None, NAMED["int"]) else None
        if type is None:
            raise UntranslatableError(f"{self._around()}, where a type is expected")
        while self._peek() in ("*", "const", "volatile"):
            if self._next() == "*":
                type = Pointer(type)
        return type

    def _struct(self, *, is_union: bool) -> Struct:
        name = "" if self._peek() == "{" else self._name()
        struct = self.structs.setdefault(name, Struct(name)) if name else Struct("")
        if self._take("{"):
            while not self._take("}"):
                base = self._type()
                if self._take(";"):
                    struct.add("", base, is_union=is_union)
                    continue
                while True:
                    member, type = self._declarator(base)
                    struct.add(member, type, is_union=is_union)
                    if not self._take(","):
                        break
                self._expect(";")
        return struct

    def _declarator(self, type: Type) -> tuple[str, Type]:
        while self._peek() in ("*", "const", "volatile"):
            if self._next() == "*":
                type = Pointer(type)
        name = self._name()
        sizes = []
        while self._take("["):
            sizes.append(self._constant())
            self._expect("]")
        for size in reversed(sizes):
            type = Array(type, size)
        return name, type

    def _constant(self) -> int:
        value = evaluate(self._ternary())
        if value is None:
            raise UntranslatableError(f"{self._around()}, where a constant is expected")
        return value

    def _function(self) -> s.Function:
        self._changed, self._addressed = set(), set()
        name, result = self._declarator(self._type())
        self._expect("(")
        parameters: list[tuple[str, Type]] = []
        while not self._take(")"):
            parameter, type = self._declarator(self._type())
            parameters.append((parameter, Pointer(type.of) if isinstance(type, Array) else type))
            self._take(",")
        statements = self._block().statements
        return s.Function(name, result, parameters, statements, self._changed, self._addressed)

    # Statements.

    def _block(self) -> s.Block:
        self._expect("{")
        statements: list[s.Statement] = []
        while not self._take("}"):
            statements += self._statement()
        return s.Block(statements)

    def _one(self) -> s.Statement:
        statements = self._statement()
        return statements[0] if len(statements) == 1 else s.Block(statements)

    def _statement(self) -> list[s.Statement]:
        token = self._peek()
        if token == "{":
            return [self._block()]
        if self._take(";"):
            return []
        if self._starts_type():
            return self._declarations()
        if token == "if":
            return [self._if()]
        if token in ("for", "while"):
            return [self._loop()]
        if token == "switch":
            return [self._switch()]
        if token == "asm":
            return [self._pin()]
        statement: s.Statement
        if self._take("return"):
            statement = s.Return(None if self._peek() == ";" else self._expression())
        elif token in ("break", "continue"):
            self._at += 1
            statement = s.Leave(str(token))
        elif token in ("goto", "__label__") or self._peek(1) == ":":
            raise UntranslatableError("goto")
        else:
            statement = s.Evaluate(self._expression())
        self._expect(";")
        return [statement]

    def _declarations(self) -> list[s.Statement]:
        base = self._type()
        # The stars in front of the first name are its own.
        first, innermost = base, base
        while isinstance(innermost, Pointer):
            innermost = innermost.to
        declared: list[s.Statement] = []
        while True:
            name, type = self._declarator(first if not declared else innermost)
            value: s.Node | None = None
            if self._take("="):
                value = self._initialiser() if self._peek() == "{" else self._expression()
            declared.append(s.Declare(name, type, value))
            if not self._take(","):
                break
        self._expect(";")
        return declared

    def _initialiser(self) -> s.Initialiser:
        self._expect("{")
        values: list[tuple[str, s.Node]] = []
        while not self._take("}"):
            name = ""
            if self._take("."):
                name = self._name()
                self._expect("=")
            values.append((name, self._expression()))
            self._take(",")
        return s.Initialiser(values)

    def _parenthesised(self) -> s.Node:
        self._expect("(")
        value = self._expression()
        self._expect(")")
        return value

    def _if(self) -> s.If:
        self._expect("if")
        condition = self._parenthesised()
        yes = self._one()
        return s.If(condition, yes, self._one() if self._take("else") else None)

    def _loop(self) -> s.For:
        if self._take("while"):
            return s.For([], self._parenthesised(), None, self._one())
        self._expect("for")
        self._expect("(")
        first = self._statement()
        condition = None if self._peek() == ";" else self._expression()
        self._expect(";")
        step = None if self._peek() == ")" else self._expression()
        self._expect(")")
        return s.For(first, condition, step, self._one())

    def _switch(self) -> s.Switch:
        self._expect("switch")
        value = self._parenthesised()
        self._expect("{")
        cases: list[tuple[int | None, int]] = []
        body: list[s.Statement] = []
        while not self._take("}"):
            if self._take("case"):
                cases.append((self._constant(), len(body)))
                self._expect(":")
            elif self._take("default"):
                cases.append((None, len(body)))
                self._expect(":")
            else:
                body += self._statement()
        return s.Switch(value, cases, body)

    def _pin(self) -> s.Pin:
        for token in ("asm", "volatile", "(", '""', ":", '"+r"', "("):
            self._expect(token)
        name = self._name()
        for token in (")", ")", ";"):
            self._expect(token)
        return s.Pin(name)

    # Expressions.

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
