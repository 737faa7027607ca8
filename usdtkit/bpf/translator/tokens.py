"""C text → tokens, with comments gone and macros replaced.

Input: the text of a program, and the names that are defined from the start. Output: tokens for `parser`: names,
operators and quoted strings as they stand in the text, and numbers as `Literal`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.types import INT, S64, U32, U64, Integer
from usdtkit.records import NamedTuple

_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_TOKENS = re.compile(
    r"(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)(?P<suffix>[uUlL]*)"
    r'|[A-Za-z_]\w*|"(?:\\.|[^"\\])*"|<<=|>>=|->|\+\+|--|<<|>>|&&|\|\||[-+*/%&|^<>=!]=|[^\s]'
)
# Macros that stand for something that cannot be said in C; `lowering` knows what.
INTRINSICS = frozenset({"PARAMETER", "CALLBACK", "BY_TABLES", "EVENTS_QUERY"})


class Literal(NamedTuple):
    """A number in the text, with the type that C gives it."""

    value: int
    type: Integer


Token = str | Literal


class _Macro(NamedTuple):
    parameters: tuple[str, ...] | None
    body: tuple[Token, ...]


def tokens(text: str, defined: Sequence[str] = ()) -> list[Token]:
    """The tokens of a text. UntranslatableError of a directive that is not understood, as a user's C has."""
    macros: dict[str, _Macro] = {name: _Macro(None, ()) for name in defined}
    kept: list[Token] = []
    lines: list[str] = []
    skipping: list[bool] = []  # of each open #if, whether what follows is left out
    decided: list[bool] = []

    def flush() -> None:
        kept.extend(_expand(_split("\n".join(lines)), macros))
        lines.clear()

    for line in _COMMENTS.sub(" ", text).split("\n"):
        if not line.startswith("#"):
            if not any(skipping):
                lines.append(line)
            continue
        flush()
        directive, _, rest = line[1:].strip().partition(" ")
        if directive in ("if", "ifdef", "ifndef"):
            holds = any(name in macros for name in re.findall(r"\w+", rest)) != (directive == "ifndef")
            skipping.append(not holds)
            decided.append(holds)
        elif directive in ("else", "elif"):
            holds = not decided[-1] and (
                directive == "else" or any(name in macros for name in re.findall(r"\w+", rest))
            )
            skipping[-1] = not holds
            decided[-1] = decided[-1] or holds
        elif directive == "endif":
            skipping.pop()
            decided.pop()
        elif any(skipping) or directive in ("include", "pragma"):
            continue
        elif directive == "define":
            _define(rest, macros)
        else:
            raise UntranslatableError("C text of a user" if directive == "line" else f"#{directive}")
    flush()
    return kept


def _define(rest: str, macros: dict[str, _Macro]) -> None:
    match = re.match(r"(\w+)(?:\(([\w\s,]*)\))?(.*)", rest)
    if match is None:
        raise UntranslatableError(f"#define {rest}")
    name, parameters, body = match.groups()
    if name not in INTRINSICS:
        names = None if parameters is None else tuple(parameters.replace(",", " ").split())
        macros[name] = _Macro(names, tuple(_split(body)))


def _split(text: str) -> Iterator[Token]:
    for match in _TOKENS.finditer(text):
        if match["number"]:
            yield _literal(match["number"], match["suffix"].lower())
        else:
            yield match[0]


def _literal(digits: str, suffix: str) -> Literal:
    value = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    unsigned, long = "u" in suffix, "l" in suffix
    if value < 1 << 31 and not unsigned and not long:
        return Literal(value, INT)
    if value < 1 << 32 and not long and (unsigned or digits[:2] in ("0x", "0X")):
        return Literal(value, U32)
    return Literal(value, U64 if unsigned or value >= 1 << 63 else S64)


def _expand(given: Iterator[Token], macros: dict[str, _Macro]) -> list[Token]:
    out: list[Token] = []
    waiting: list[Token] = list(given)[::-1]
    while waiting:
        token = waiting.pop()
        macro = macros.get(token) if isinstance(token, str) else None
        if macro is None:
            out.append(token)
        elif macro.parameters is None:
            waiting += macro.body[::-1]
        else:
            given_to = dict(zip(macro.parameters, _arguments(waiting), strict=True))
            for part in macro.body[::-1]:
                if isinstance(part, str) and part in given_to:
                    waiting += given_to[part][::-1]
                else:
                    waiting.append(part)
    return out


def _arguments(waiting: list[Token]) -> list[list[Token]]:
    """Take the arguments of a macro, in parentheses, from the end of what waits."""
    waiting.pop()
    arguments: list[list[Token]] = [[]]
    depth = 0
    while waiting:
        token = waiting.pop()
        if token == ")" and not depth:
            return arguments
        if token == "," and not depth:
            arguments.append([])
            continue
        depth += (token == "(") - (token == ")")
        arguments[-1].append(token)
    raise UntranslatableError("a macro without its closing parenthesis")
