"""Tests of strings and bytes → C text, and the entries of the map `globs`.

Input: a test of an expression and, from `render`, where its text lies. Output: C for `render`, and patterns as entries
of the map. Short literals are compared word by word. Patterns are matched by globs.c, which looks at every byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

from usdtkit.bpf.expressions import ANY_BYTE, ANY_BYTES, Glob, TextTest
from usdtkit.errors import UsageError
from usdtkit.records import dataclass

# A literal is compared on the program's stack, which has 512 bytes in all.
MAX_LITERAL = 128
GLOBS = "globs"
"""The map of globs.c."""


@dataclass(frozen=True)
class TextPlace:
    """Where a text lies. `kind` is a name of globs.c; `address` and `length` are C, the latter unused for strings.

    `size` is how many bytes of it a glob looks at, `opening` statements that `address` needs.
    """

    kind: Literal["USER_STRING", "USER_TEXT", "USER_BYTES", "KERNEL_STRING", "KERNEL_BYTES"]
    address: str
    size: int
    length: str = "0"
    opening: str = ""


def render_test(test: TextTest, place: TextPlace, parameter: Callable[[int], str], unreadable: str) -> str:
    """The C that tells whether the text is `test.literal`, or begins with it. `unreadable` is a counter in C."""
    literal, is_text = test.literal, place.kind != "USER_BYTES" and place.kind != "KERNEL_BYTES"
    if len(literal) > MAX_LITERAL:
        raise UsageError(
            f"a string of {len(literal)} bytes is too long to compare with", hint=f"at most {MAX_LITERAL} bytes"
        )
    if is_text and b"\0" in literal:
        return "(u64)0"  # a string ends at the NUL
    is_string = place.kind in ("USER_STRING", "KERNEL_STRING")
    # One byte more than the literal and its NUL tells a longer string from an equal one.
    capacity = len(literal) + (is_text and test.whole) + is_string
    words = max(1, (capacity + 7) // 8)
    padded = literal.ljust(words * 8, b"\0")
    same = " && ".join(
        f"w[{i}] == {parameter(int.from_bytes(padded[i * 8 : i * 8 + 8], 'little'))}" for i in range(words)
    )
    if is_string:
        # Of an empty string, kernels before 6.15 report that they have read 0 bytes, later ones 1.
        fits = f"n == {len(literal) + 1}" if literal else "(u64)n <= 1"
    elif is_text:
        fits = "n >= 0"
    else:
        fits = f"n {'==' if test.whole else '>='} {len(literal)}"
    read = {
        "USER_STRING": f"counted(read_string(w, {capacity}, {place.address}), {unreadable})",
        "USER_TEXT": f"counted(read_buffer(w, {capacity}, {place.address}, {place.length}), {unreadable})",
        "USER_BYTES": f"counted(read_buffer(w, {capacity}, {place.address}, {place.length}), {unreadable})",
        "KERNEL_STRING": f"({place.length} < 0 ? -1 : bpf_probe_read_kernel_str(w, {capacity}, {place.address}))",
        "KERNEL_BYTES": f"{place.length}; bpf_probe_read_kernel(w, {capacity}, {place.address})",
    }[place.kind]
    return f"({{ {place.opening} u64 w[{words}] = {{}}; long n = {read}; (u64)({fits} && {same}); }})"


def render_glob(number: int, place: TextPlace, unreadable: str) -> str:
    """The C that tells whether the text matches the glob with this number in the map."""
    where = f"(u64)({place.address}), {place.length}, {place.size}"
    return f"({{ {place.opening} glob_match({number}, {place.kind}, {where}, {unreadable}); }})"


def pack_glob(glob: Glob) -> bytes:
    """A pattern as a `struct glob` of globs.c."""
    stay, at = 0, 0
    step = [0] * 256
    for element in glob.pattern:
        if element == ANY_BYTES:
            stay |= 1 << at
            continue
        at += 1
        for byte in range(256) if element == ANY_BYTE else (element,):
            step[byte] |= 1 << at
    return struct.pack("<258Q", stay, 1 << at, *step)
