"""Tokens → the declarations and functions of a program.

Input: what `tokens` gives. Output: `Parser`, which knows structures, maps and functions by name. A function is parsed
when it is first asked for, because a program uses few of those that stand at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.bpf.translator import syntax as s
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.terms import Terms
from usdtkit.bpf.translator.tokens import Literal, Token
from usdtkit.bpf.translator.types import Array, Pointer, Type
from usdtkit.records import NamedTuple


class MapDeclaration(NamedTuple):
    """A map as one of bcc's macros declares it: the macro, and its arguments, types as types."""

    macro: str
    arguments: tuple[Type | int | str, ...]


class Parser(Terms):
    """The declarations of a text, by name. UntranslatableError of what is not among the C that our programs have."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__(tokens)
        self.maps: dict[str, MapDeclaration] = {}
        self.programs: list[str] = []
        """The functions that are programs of their own, in the order of the text."""
        self._bodies: dict[str, int] = {}
        self._functions: dict[str, s.Function] = {}
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
            elif token == "":
                raise UntranslatableError(f"{macro} without its closing parenthesis")
            else:
                arguments.append(str(self._next()))
            self._take(",")
        self._expect(";")
        names = [argument for argument in arguments if isinstance(argument, str) and argument.isidentifier()]
        if not names:
            raise UntranslatableError(f"{macro} without a name")
        self.maps[names[0]] = MapDeclaration(macro, tuple(arguments))

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
