"""Which SQL statements the kernel counts as one: scanners that leave out what `sql.normalise` leaves out.

Input: a dialect. Output: a `Scanner`, for `usdtkit.trace.interned`. Statements that it does not tell apart have the
same shape, or begin with the same word. The opposite does not hold: where a statement has anything that takes more than
a few states to understand, all that follows makes a difference. Its shape is found in Python afterwards.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from usdtkit.providers.sql import Dialect
from usdtkit.trace import Scanner

_Step = tuple[str, int | Literal["byte"] | None]  # the next state, and what counts

_NUMBER, _EXPONENT, _COMMENT, _QUOTED, _DOUBLE_QUOTED = 1, 2, 3, 4, 5
_IN_LITERAL = {"'": ("single", _QUOTED), '"': ("double", _DOUBLE_QUOTED)}
_QUOTES = {"single": "'", "double": '"'}
_FIRST_LETTER, _PREFIXES = 64, {"'": 27, "&": 28}
_RAW: _Step = ("raw", "byte")


@cache
def same_shape(dialect: Dialect) -> Scanner:
    """Statements that differ in numbers, strings and comments only are alike."""
    return Scanner("plain", lambda state, byte: _step(state, chr(byte), dialect))


@cache
def same_kind(dialect: Dialect) -> Scanner:
    """Statements whose first words are the same are alike."""
    return Scanner("plain", lambda state, byte: _step_to_word(state, chr(byte), dialect))


def _step(state: str, char: str, dialect: Dialect) -> _Step:
    is_word = char.isascii() and (char.isalnum() or char == "_")
    match state:
        case "raw":
            return _RAW
        case "single" | "double":
            if char == "\\" and dialect == "mysql":
                return f"{state}, escaped", None
            return (f"{state}, closed" if char == _QUOTES[state] else state), None
        case "single, escaped" | "double, escaped":
            return state.partition(",")[0], None
        case "single, closed" | "double, closed":
            kind = state.partition(",")[0]
            if char == _QUOTES[kind]:  # a doubled quote is part of the literal
                return kind, None
            # Nothing that touches a literal can be understood.
            return _RAW if is_word or not char.isascii() else _plain(char, dialect)
        case "comment begins" | "comment" | "comment, star" | "comment, slash":
            return _step_in_comment(state, char)
    if not char.isascii():  # a letter, or a quote of a word processor, which begins a literal
        return ("`", "byte") if state == "`" else ('"', "byte") if state == '"' else _RAW
    match state:
        case "number" | "number, e":
            if is_word or char == ".":
                return ("number, e" if char in "eE" else "number"), None
            if state == "number, e" and char in "+-":
                return "exponent", _EXPONENT
        case "exponent" if char.isdigit():
            return "exponent", None
        case "word" if is_word or char == "$":
            return "word", "byte"
        case "e":
            if is_word or char == "$":
                return "word", "byte"
            if char == "'":  # PostgreSQL's E'', which may go on in the next line
                return _RAW
        case "`" | '"':
            return ("plain" if char == state else state), "byte"
        case "dash" if char == "-":
            return _RAW
        case "slash" if char == "*":
            return "comment begins", "byte"
        case "star" if char == "/":  # a comment that does not begin, which MySQL skips
            return "plain", "byte"
        case "dollar":
            return ("parameter", "byte") if char.isdigit() else _RAW
        case "parameter" if char.isdigit():
            return "parameter", "byte"
    return _plain(char, dialect)


def _plain(char: str, dialect: Dialect) -> _Step:
    """At the beginning of a token."""
    is_mysql = dialect == "mysql"
    if char.isdigit():
        return "number", _NUMBER
    if char.isalpha() or char == "_":
        return ("e" if char in "eE" and not is_mysql else "word"), "byte"
    if char == "'" or (char == '"' and is_mysql):
        return _IN_LITERAL[char]
    if char == "`" and is_mysql:
        return "`", "byte"
    if char == '"':
        return '"', "byte"
    if char == "#" and is_mysql:
        return _RAW
    if char == "$" and not is_mysql:
        return "dollar", "byte"
    return {"-": "dash", "/": "slash", "*": "star" if is_mysql else "plain"}.get(char, "plain"), "byte"


def _step_in_comment(state: str, char: str) -> _Step:
    if state == "comment begins" and char in "!M":  # some servers run what is in it
        return _RAW
    if state == "comment, star" and char == "/":
        return "plain", _COMMENT
    if state == "comment, slash" and char == "*":  # one comment in another
        return _RAW
    return {"*": "comment, star", "/": "comment, slash"}.get(char, "comment"), None


def _step_to_word(state: str, char: str, dialect: Dialect) -> _Step:
    is_letter = char.isascii() and char.isalpha()
    match state:
        case "raw":
            return _RAW
        case "over":
            return "over", None
        case "word":
            if is_letter:
                return "word", ord(char.upper()) - _FIRST_LETTER
            # A letter in front of a literal may belong to it.
            return ("raw", _PREFIXES[char]) if char in _PREFIXES else ("over", None)
        case "slash" if char == "*":
            return "comment begins", "byte"
        case "comment begins" | "comment" | "comment, star" | "comment, slash":
            return _step_in_comment(state, char)
        case "plain":
            if is_letter:
                return "word", ord(char.upper()) - _FIRST_LETTER
            if char in " \t\r\n\f\v(;":
                return "plain", None
            if char == "/":
                return "slash", "byte"
    return _RAW
