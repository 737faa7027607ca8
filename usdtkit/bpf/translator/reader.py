"""Tokens one after the other, and the types and names that declarations put together of them.

Input: what `tokens` gives. Output: the base of `terms` and `parser`, and the structures of a text by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.tokens import Literal, Token
from usdtkit.bpf.translator.types import NAMED, U32, U64, Array, Pointer, Struct, Type

_QUALIFIERS = frozenset({"const", "volatile", "static", "inline", "__always_inline"})
_WORDS = _QUALIFIERS | {"struct", "union", "unsigned", "signed"}


class Reader(ABC):
    """A place in the tokens of a text."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.structs: dict[str, Struct] = {}
        self._tokens = tokens
        self._at = 0

    @abstractmethod
    def _constant(self) -> int:
        """Take an expression of numbers, and return its value."""

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
