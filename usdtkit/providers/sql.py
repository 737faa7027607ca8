r"""The text of an SQL statement → its shape without the data, which many statements share and which tells no secret.

    from usdtkit.providers import sql

    shape = sql.normalise("select price from stock where item in ('tea', 'salt') -- now", "mysql")
    print(shape)
    print(sql.kind(shape))

Input: the text of a statement, or only its beginning (`Truncated`). Output: the text with "?" in place of each literal,
without comments, and with each list of literals as one. Nothing is parsed. A scanner that knows quotes, comments and
numbers is right about every statement, even a broken one, and takes time proportional to its length.

A scanner cannot know the mode of a server. It takes a string to end where the default of the dialect says. Under
MySQL's NO_BACKSLASH_ESCAPES, or a character set whose second byte may be a backslash (gbk, sjis, big5), the string may
end elsewhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from usdtkit.records import NamedTuple
from usdtkit.trace import Truncated, TruncatedBytes

Dialect = Literal["mysql", "postgresql"]

REMEMBERED = 4096
"""How many texts are remembered with what is shown of them, because servers get the same ones again and again."""

# An unclosed quote reaches to the end of the text in all of them, because the text may have been cut within the quote.
# No server accepts the quotes of a word processor, but somebody who has pasted them means a string.
_ESCAPED = r"'(?:[^'\\]|\\.?|'')*'?"
_PLAIN = r"'(?:[^']|'')*'?"
_PASTED = "[‘’‚‛“”„‟][^‘’‚‛“”„‟]*[‘’‚‛“”„‟]?"
_WORD = r"(?P<word>[^\W\d][\w$]*)"
_NUMBER = r"(?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-]\d*)?)"
_SCANNERS = {
    "mysql": re.compile(
        rf"""(?P<space>\s+|--(?=[\0-\x20\x7f]|\Z)[^\n\0]*|\#[^\n\0]*|\*/)
        |(?P<conditional>/\*M?!(?P<version>\d*))|(?P<comment>/\*)
        |(?P<literal>(?:[nNxXbB]|_\w+)?{_ESCAPED}|"(?:[^"\\]|\\.?|"")*"?|{_PASTED})
        |(?P<name>`[^`]*`?)|{_NUMBER}|{_WORD}|.""",
        re.S | re.X,
    ),
    "postgresql": re.compile(
        rf"""(?P<space>\s+|--[^\n\r]*)|(?P<comment>/\*)
        |(?P<escaped>[eE]{_ESCAPED})|(?P<literal>(?:[nNxXbB]|[uU]&)?{_PLAIN}|{_PASTED})
        |(?P<dollar>\$(?:[^\W\d]\w*)?\$)|(?P<name>"[^"]*"?)|(?P<parameter>\$\d+)|(?P<stray>\$)|{_NUMBER}|{_WORD}|.""",
        re.S | re.X,
    ),
}
# What may begin or end a string, a comment, a quoted name or a parameter in some dialect.
_SPECIAL = re.compile(r"[^\w\s=<>,().;+%!|&^~:?@\[\]{}*/-]|--|/\*|\*/", re.ASCII)
_PLAIN_NUMBER = re.compile(r"(?:\.|(?<!\w))\d[\w.]*(?:(?<=[eE])[+-]\d*)?", re.ASCII)
_GAP = re.compile(r"\s+|--[^\n\r]*[\n\r]")
_PART = re.compile(_ESCAPED, re.S)
# MySQL writes its version as five digits, MariaDB since 10 as six. No server has a larger version than these yet.
_NEWEST_OF_FIVE, _NEWEST_OF_SIX = 95_000, 150_000
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SIGN = re.compile(r"([(,=<>*/%] ?)[+-]+\?")
_LIST = re.compile(r"\( ?\?(?: ?, ?\?)+ ?\)")
_ROWS = re.compile(r"\(\?\)(?: ?, ?\(\?\))+")
_KIND = re.compile(r"[\s(;]*([A-Za-z]+)")


# Typed, because text that was cut off is equal to the same text that is whole, and shown in another way.
@lru_cache(REMEMBERED, typed=True)
def shown(text: str | bytes | None, dialect: Dialect, *, raw: bool = False) -> str | None:
    """A statement of a traced server as it may be shown: without its literals, or with `raw` as it was sent.

    None stays None. Bytes that are not UTF-8 become surrogates, and text that was cut stays marked (`Truncated`).
    """
    if isinstance(text, bytes):
        decoded = text.decode(errors="surrogateescape")
        text = Truncated(decoded) if isinstance(text, TruncatedBytes) else decoded
    return text if raw or text is None else normalise(text, dialect)


def normalise(text: str, dialect: Dialect) -> str:
    """The statement with "?" for each literal; `Truncated` if the text is."""
    shape = "".join(_scan(text, dialect)) if _SPECIAL.search(text) else _of_plain(text)
    shape = _ROWS.sub("(?)", _LIST.sub("(?)", _SIGN.sub(r"\1?", shape))).strip(" ;")
    return Truncated(shape) if isinstance(text, Truncated) else shape


def kind(shape: str) -> str:
    """What a normalised statement does, by its first word: "SELECT"; "?" if it begins with no word."""
    word = _KIND.match(shape)
    return word[1].upper() if word else "?"


def _of_plain(text: str) -> str:
    """What `_scan` makes of a text that has only words, numbers and signs, in a fraction of the time."""
    return " ".join(_PLAIN_NUMBER.sub("?", text).split())


def _scan(text: str, dialect: Dialect) -> list[str]:
    """The pieces of the normalised text."""
    scanner, pieces, at = _SCANNERS[dialect], [" "], 0
    condition: _Condition | None = None
    while at < len(text):
        token = scanner.match(text, at)
        assert token is not None  # every character matches
        begin, at = at, token.end()
        match token.lastgroup:
            case "space":
                piece = " "
            case "conditional" if condition is None:
                end = text.find("*/", at)
                condition = _Condition(len(text) if end < 0 else end, len(pieces), _is_of_no_server(token["version"]))
                piece = " "
            case "comment" | "conditional":
                at = _comment_end(text, at, nested=dialect == "postgresql")
                piece = " "
            case "dollar":
                closing = text.find(token[0], at)
                at = len(text) if closing < 0 else _behind_literal(text, closing + len(token[0]))
                piece = "?"
            case "literal":
                at, piece = _behind_literal(text, at), "?"
            case "escaped":
                at, piece = _behind_literal(text, _end_of_continued(text, at)), "?"
            case "stray":  # no server accepts it
                at, piece = len(text), "?"
            case "number":
                piece = "?"
            case _:
                piece = token[0]
        if piece != " " or pieces[-1] != " ":
            pieces.append(piece)
        if condition is not None and at > condition.end:
            # Servers that do not run the comment see it end here. If a string or a comment within it reaches further,
            # the text behind it is part of a string for one server and not for another: none of it can be shown.
            agreed = begin == condition.end
            if condition.is_hidden or not agreed:
                del pieces[condition.first :]
            if not agreed:
                return [*pieces, "?"]
            condition = None
    if condition is not None and condition.is_hidden:
        del pieces[condition.first :]
    return pieces


class _Condition(NamedTuple):
    """A comment whose text some servers run: where it ends, and the number of its first piece.

    `is_hidden` says that no server runs it.
    """

    end: int
    first: int
    is_hidden: bool


def _is_of_no_server(version: str) -> bool:
    """Whether a comment is for a version that no server has, such as 99999, so that all servers ignore its text."""
    return len(version) >= 5 and int(version[:6]) > (_NEWEST_OF_FIVE if len(version) == 5 else _NEWEST_OF_SIX)


def _behind_literal(text: str, at: int) -> int:
    """Where to continue after a literal that ends at `at`: there, or at the end of the text if a word touches it.

    No server accepts such a word, so the quotes are not what they seem, and the rest may be part of a literal.
    """
    return len(text) if text[at : at + 1].isalnum() else at


def _end_of_continued(text: str, at: int) -> int:
    """The end of an E'' string of PostgreSQL, which a later line that begins with a quote continues, escapes included.

    Only blank lines, and comments that end with their line, may stand before that line.
    """
    while True:
        next_, is_new_line = at, False
        while gap := _GAP.match(text, next_):
            is_new_line = is_new_line or "\n" in gap[0] or "\r" in gap[0]
            next_ = gap.end()
        part = _PART.match(text, next_) if is_new_line else None
        if part is None:
            return at
        at = part.end()


def _comment_end(text: str, at: int, *, nested: bool) -> int:
    """Where a comment ends whose text begins at `at`."""
    depth = 1
    while edge := _COMMENT_EDGE.search(text, at):
        at = edge.end()
        depth += -1 if edge[0] == "*/" else nested
        if depth == 0:
            return at
    return len(text)
