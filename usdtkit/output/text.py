"""Strings of traced programs → text that is safe on a terminal, in a table and in JSON.

Every byte of such a string is somebody else's: control characters, escape sequences, direction overrides and broken
UTF-8 come out as visible escapes, so that they can neither move the cursor nor pass for other text.
"""

from __future__ import annotations

from typing import Any

from usdtkit.bpf.layout import Truncated, TruncatedBytes


def printable(text: str) -> str:
    r"""`text` with everything that is not printable as \xNN, \uNNNN or \UNNNNNNNN; the backslash as it is."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def show(value: Any) -> str:
    """A value of an event as text: strings printable, bytes in hexadecimal, "…" where something was cut off."""
    match value:
        case None:
            return "?"
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.hex() + ("…" if isinstance(value, TruncatedBytes) else "")
        case str():
            return printable(value) + ("…" if isinstance(value, Truncated) else "")
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: bytes in hexadecimal, bytes that are no UTF-8 in a string as escapes."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)  # JSON has no such numbers
    if isinstance(value, (list, tuple)):
        return [jsonable(one) for one in value]
    return value


def is_cut(value: Any) -> bool:
    """Whether only the beginning of a string or of bytes was read."""
    return isinstance(value, (Truncated, TruncatedBytes))
