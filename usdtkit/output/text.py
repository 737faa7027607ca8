"""Strings of traced programs → text that is safe on a terminal, in a table and in JSON.

Any byte of these strings may be hostile. Control characters, escape sequences, direction overrides and broken UTF-8
become visible escapes, so that they can neither move the cursor nor look like other text.
"""

from __future__ import annotations

from typing import Any

from usdtkit.model import PythonCaller, Truncated, TruncatedBytes


def printable(text: str) -> str:
    r"""`text` with characters that are not printable as \xNN, \uNNNN or \UNNNNNNNN. A backslash stays as it is."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def show(value: Any) -> str:
    """A value of an event as text: strings printable, bytes in hexadecimal, "…" if something was cut off."""
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
        case PythonCaller():
            return printable(str(value))
        case _:
            return str(value)


def show_argument(value: Any) -> str:
    """An argument as text, as `show` does, but "null" if the pointer was NULL, or what it points to was not read."""
    if type(value) is str:  # most of them
        return printable(value)
    return "null" if value is None else show(value)


def jsonable(value: Any) -> Any:
    """A value for JSON: bytes become hexadecimal digits, and bytes in a string that are not UTF-8 become escapes."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)  # JSON has no such numbers
    return value


def is_cut(value: Any) -> bool:
    """Whether only the beginning of a string or of bytes was read."""
    return isinstance(value, (Truncated, TruncatedBytes))


def hexdump(data: bytes | None) -> str:
    """Bytes as lines below a row. Each line has an offset, 16 bytes in hexadecimal, and their ASCII characters."""
    rows = [(at, data[at : at + 16]) for at in range(0, len(data), 16)] if data else []
    return _below([f"  {at:04x}  {row.hex(' '):<47}  {''.join(map(_ascii, row))}" for at, row in rows], data)


def decoded(data: bytes | None) -> str | None:
    """Bytes as a string, which is `Truncated` if they are `TruncatedBytes`."""
    if data is None:
        return None
    text = data.decode(errors="surrogateescape")
    return Truncated(text) if isinstance(data, TruncatedBytes) else text


def paragraph(text: str | None) -> str:
    """A string as lines below a row, each of them printable."""
    return _below([f"  {printable(line)}" for line in (text or "").splitlines()], text)


def _ascii(code: int) -> str:
    return chr(code) if 0x20 <= code < 0x7F else "."


def _below(lines: list[str], data: str | bytes | None) -> str:
    if data is None:
        lines = ["  ?"]
    elif is_cut(data):
        lines.append("  …")
    return "".join(f"\n{line}" for line in lines)
