"""What the operand grammars share: the reason why an operand cannot be read, and bounded numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

SymbolResolver = Callable[[str], int | None]
"""Name → virtual address in the same file, or None where it is not known or not unique."""

_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", re.ASCII)


class Unreadable(Exception):
    """The operand is well placed but no value can be read from it; the text says why. It never leaves this package."""


def number(text: str, reason: str) -> int:
    """The integer that `text` spells in decimal or hex, within 64 bits; else Unreadable(reason)."""
    if not _NUMBER.fullmatch(text):
        raise Unreadable(reason)
    value = int(text, 16 if "x" in text.lower() else 10)
    if not -(1 << 63) <= value < 1 << 64:
        raise Unreadable("number beyond 64 bits")
    return value
