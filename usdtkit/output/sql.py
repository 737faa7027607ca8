r"""SQL as a server got it → the same statement without its data: a shape that many statements share, and no secret.

Input: text of a traced server, perhaps only its beginning (`Truncated`). Output: for the tools that show statements:
literals are "?", comments are gone, lists of literals are one. Nothing is parsed: a scanner that knows quotes, comments
and numbers is right about every statement, also a broken one, and takes time proportional to its length.

What a scanner cannot know is a server's mode. A string is taken to end where the dialect's default says; under MySQL's
NO_BACKSLASH_ESCAPES, or a character set whose second byte may be a backslash (gbk, sjis, big5), it may end elsewhere.
"""

from __future__ import annotations

import re
from typing import Literal

from usdtkit.bpf.layout import Truncated

Dialect = Literal["mysql", "postgresql"]

# In all of them an unclosed quote reaches to the end: what was cut off was inside it.
_ESCAPED = r"'(?:[^'\\]|\\.?|'')*'?"
_PLAIN = r"'(?:[^']|'')*'?"
_WORD = r"(?P<word>[^\W\d][\w$]*)"
_NUMBER = r"(?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-]\d*)?)"
_SCANNERS = {
    "mysql": re.compile(
        rf"""(?P<space>\s+|--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*!\d*|\*/)|(?P<comment>/\*)
        |(?P<literal>(?:[nNxXbB]|_\w+)?{_ESCAPED}|"(?:[^"\\]|\\.?|"")*"?)
        |(?P<name>`[^`]*`?)|{_NUMBER}|{_WORD}|.""",
        re.S | re.X,
    ),
    "postgresql": re.compile(
        rf"""(?P<space>\s+|--[^\n]*)|(?P<comment>/\*)
        |(?P<literal>[eE]{_ESCAPED}|(?:[nNxXbB]|[uU]&)?{_PLAIN})|(?P<dollar>\$(?:[^\W\d]\w*)?\$)
        |(?P<name>"[^"]*"?)|(?P<parameter>\$\d+)|{_NUMBER}|{_WORD}|.""",
        re.S | re.X,
    ),
}
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SIGN = re.compile(r"([(,=<>*/%] ?)[+-]+\?")
_LIST = re.compile(r"\( ?\?(?: ?, ?\?)+ ?\)")
_ROWS = re.compile(r"\(\?\)(?: ?, ?\(\?\))+")
_KIND = re.compile(r"[\s(;]*([A-Za-z]+)")


def normalise(text: str, dialect: Dialect) -> str:
    """The statement with "?" for each literal; `Truncated` where the text was."""
    shape = "".join(_scan(text, dialect))
    shape = _ROWS.sub("(?)", _LIST.sub("(?)", _SIGN.sub(r"\1?", shape))).strip(" ;")
    return Truncated(shape) if isinstance(text, Truncated) else shape


def kind(shape: str) -> str:
    """What a normalised statement does, by its first word: "SELECT"; "?" where it begins with none."""
    found = _KIND.match(shape)
    return found[1].upper() if found else "?"


def _scan(text: str, dialect: Dialect) -> list[str]:
    """What is shown of the text, piece by piece."""
    scanner, pieces, at = _SCANNERS[dialect], [" "], 0
    while at < len(text):
        token = scanner.match(text, at)
        assert token is not None  # any character is one
        at = token.end()
        match token.lastgroup:
            case "space":
                piece = " "
            case "comment":
                at = _comment_end(text, at, nested=dialect == "postgresql")
                piece = " "
            case "dollar":
                closing = text.find(token[0], at)
                at = len(text) if closing < 0 else closing + len(token[0])
                piece = "?"
            case "literal":
                if text[at : at + 1].isalnum():  # no server takes this: the quotes are not what they seem
                    at = len(text)
                piece = "?"
            case "number":
                piece = "?"
            case _:
                piece = token[0]
        if piece != " " or pieces[-1] != " ":
            pieces.append(piece)
    return pieces


def _comment_end(text: str, at: int, *, nested: bool) -> int:
    """Where the comment whose text begins at `at` is over."""
    depth = 1
    while edge := _COMMENT_EDGE.search(text, at):
        at = edge.end()
        depth += -1 if edge[0] == "*/" else nested
        if depth == 0:
            return at
    return len(text)
