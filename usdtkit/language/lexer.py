"""Text → tokens, each with its position in the text.

Input: text from a user. Output: tokens for `parser`. Names, numbers and literals are those of C, and a name may begin
with `$`. What tokens mean is not known here.
"""

from __future__ import annotations

import re
from typing import Literal

from usdtkit.errors import SpecError
from usdtkit.records import dataclass

Kind = Literal["name", "number", "string", "operator", "end"]

MAX_TEXT = 4096
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<name>\$?[A-Za-z_]\w*)
    |(?P<number>[0-9][0-9A-Za-z_.]*)
    |(?P<string>"(?:[^"\\]|\\.)*"?)
    |(?P<character>'(?:[^'\\]|\\.)*'?)
    |(?P<operator>->|::|\.\.\.|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>=()\[\]{},:;.@\#?])
    |(?P<other>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|(?P<oct>0[0-7]*)|(?P<dec>[1-9][0-9]*))[uUlL]{0,3}"
)
_ESCAPE = re.compile(r"\\(?:x(?P<hex>[0-9a-fA-F]{1,2})|(?P<oct>[0-7]{1,3})|(?P<character>.))", re.DOTALL)
_ESCAPES = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "e": 27}


@dataclass(frozen=True, slots=True)
class Token:
    """A token, as it is written from `at` to `end`. Numbers and characters have a `number`, and strings have `data`."""

    kind: Kind
    text: str
    at: int
    end: int
    number: int = 0
    data: bytes = b""


def tokens(text: str, start: int = 0) -> list[Token]:
    """The tokens of `text` from `start` on, of which the last has the kind "end". SpecError."""
    if len(text) > MAX_TEXT:
        raise SpecError(f"this has more than {MAX_TEXT} characters", text, MAX_TEXT)
    result = []
    for match in _TOKEN.finditer(text, start):
        kind, spelled, at, end = match.lastgroup, match.group(), match.start(), match.end()
        if kind == "name":
            result.append(Token("name", spelled, at, end))
        elif kind == "operator":
            result.append(Token("operator", spelled, at, end))
        elif kind == "number":
            result.append(Token("number", spelled, at, end, number=_number(text, spelled, at)))
        elif kind == "string":
            result.append(Token("string", spelled, at, end, data=unquoted(text, spelled, at)))
        elif kind == "character":
            data = unquoted(text, spelled, at)
            if len(data) != 1:
                raise SpecError("'…' holds exactly one character", text, at, hint='a string is written "…"')
            result.append(Token("number", spelled, at, end, number=data[0]))
        elif kind == "other":
            raise SpecError(f"{spelled!r} cannot be part of a spec", text, at)
    return [*result, Token("end", "", len(text), len(text))]


def _number(text: str, spelled: str, at: int) -> int:
    match = _NUMBER.fullmatch(spelled)
    if match is None:
        raise SpecError(
            f"{spelled!r} is not an integer", text, at, hint="42, 0x2a, 052 or 'a'; fractions are not supported"
        )
    base, digits = next((base, match[name]) for name, base in _BASES.items() if match[name] is not None)
    value = int(digits, base)
    if value >= 2**64:
        raise SpecError(f"{spelled} has more than 64 bits", text, at)
    return value


_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}


def unquoted(text: str, spelled: str, at: int) -> bytes:
    """The bytes of a literal, which is given with its quotes. SpecError."""
    if len(spelled) < 2 or spelled[-1] != spelled[0] or _ends_in_escape(spelled):
        raise SpecError(f"this has no {spelled[0]} at its end", text, at)
    data, last = b"", 1
    for match in _ESCAPE.finditer(spelled, 1, len(spelled) - 1):
        data += _encode(spelled[last : match.start()], text, at)
        if match["character"] is None:
            data += bytes([int(match["hex"], 16) if match["hex"] else int(match["oct"], 8) & 0xFF])
        elif (code := _ESCAPES.get(match["character"])) is not None:
            data += bytes([code])
        else:
            data += _encode(match["character"], text, at)
        last = match.end()
    return data + _encode(spelled[last:-1], text, at)


def _ends_in_escape(spelled: str) -> bool:
    """Whether an odd number of backslashes escapes the last quote, which then does not end the literal."""
    before = spelled[1:-1]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _encode(part: str, text: str, at: int) -> bytes:
    try:
        return part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise SpecError("this has a character that cannot be encoded", text, at) from None
