"""A format string of `trace` → the type that each conversion wants, and text from values.

Input: the literal and the values of a `TraceSpec`. Output: C types for `lower`, and lines. Conversions are C's, without
`*`; besides `%U`, a symbol of the process, and `%r`, bytes in hexadecimal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from usdtkit.errors import SpecError
from usdtkit.language import nodes as n
from usdtkit.language.lower import Lowering
from usdtkit.language.typenames import STRING, U64
from usdtkit.output.text import show
from usdtkit.trace import Expression

_CONVERSION = re.compile(
    rb"%(?:%|(?P<flags>[-+ #0]{0,5})(?P<width>[0-9]{0,3})(?P<precision>\.[0-9]{0,3})?"
    rb"(?P<length>hh|h|ll|l|z|j|t)?(?P<letter>[a-zA-Z]))"
)
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "z": 64, "j": 64, "t": 64}
Form = Literal["number", "text", "float", "symbol", "bytes"]


@dataclass(frozen=True)
class Conversion:
    """One `%…`: what it wants, and how Python writes it ("%-8d")."""

    form: Form
    type: n.CType
    python: str

    def lower(self, lowering: Lowering, node: n.Node) -> Expression:
        """The expression of a value for it."""
        if self.form == "text" and self.type == STRING:
            return lowering.shown(node) if lowering.has_names(node) else lowering.string(node)
        return lowering.counted(node) if self.form == "bytes" else lowering.typed(node, self.type)


class Format:
    """A format with as many values as it has conversions."""

    def __init__(self, spec: n.TraceSpec) -> None:
        assert spec.format is not None
        self._pieces: list[str | Conversion] = []
        data, last = spec.format.data, 0
        for match in _CONVERSION.finditer(data):
            self._literal(spec, data[last : match.start()])
            self._pieces.append("%" if match[0] == b"%%" else _conversion(spec, match))
            last = match.end()
        self._literal(spec, data[last:])
        if len(self.conversions) != len(spec.values):
            surplus = spec.values[len(self.conversions) :]
            raise SpecError(
                f"{len(self.conversions)} conversions, but {len(spec.values)} values",
                spec.text,
                surplus[0].at if surplus else spec.format.at,
                hint="each % takes one value; %% is a percent sign",
            )

    @property
    def conversions(self) -> list[Conversion]:
        """What wants a value, in order."""
        return [piece for piece in self._pieces if isinstance(piece, Conversion)]

    def _literal(self, spec: n.TraceSpec, data: bytes) -> None:
        if b"%" in data:
            assert spec.format is not None
            raise SpecError("a % that begins no conversion", spec.text, spec.format.at, hint="%% is a percent sign")
        self._pieces.append(data.decode("utf-8", "surrogateescape"))

    def fill(self, values: Sequence[Any], symbol: Callable[[int], str]) -> str:
        """The text with these values, and `symbol`s of addresses; what could not be read is a "?"."""
        left = iter(values)
        return "".join(p if isinstance(p, str) else _written(p, next(left), symbol) for p in self._pieces)


def _conversion(spec: n.TraceSpec, match: re.Match[bytes]) -> Conversion:
    flags, width, precision, length, letter = ((match[name] or b"").decode() for name in _GROUPS)
    bits = _BITS[length]
    head = f"%{flags}{width}{precision}"
    match letter:
        case "d" | "i":
            return Conversion("number", n.CType(f"i{bits}"), f"{head}d")
        case "u":
            return Conversion("number", n.CType(f"u{bits}"), f"{head}d")
        case "x" | "X" | "o":
            return Conversion("number", n.CType(f"u{bits}"), f"{head}{letter}")
        case "c":
            return Conversion("text", n.CType("u8"), f"{head}s")
        case "p":
            return Conversion("number", U64, f"%#{flags}{width}x")
        case "f" | "F" | "e" | "E" | "g" | "G":
            return Conversion("float", n.CType("double"), f"{head}{letter}")
        case "s":
            return Conversion("text", STRING, f"{head}s")
        case "r":
            return Conversion("bytes", STRING, f"{head}s")
        case "U":
            return Conversion("symbol", U64, f"{head}s")
    message, hint = f"there is no conversion %{letter}", "d u x o c s p f, %U a symbol, %r bytes in hexadecimal"
    if letter == "K":
        message, hint = (
            "%K is a symbol of the kernel, and kernel functions are not traced by usdtkit",
            "%U: the process's",
        )
    assert spec.format is not None
    raise SpecError(message, spec.text, spec.format.at, hint=hint)


_GROUPS = ("flags", "width", "precision", "length", "letter")


def _written(conversion: Conversion, value: Any, symbol: Callable[[int], str]) -> str:
    if conversion.form == "symbol":
        value = symbol(value)
    if conversion.type.name == "u8" and conversion.form == "text" and isinstance(value, int):
        value = chr(value)
    if isinstance(value, int) and conversion.form in ("number", "float"):
        return conversion.python % value
    if isinstance(value, float):
        return conversion.python % value
    width = conversion.python.rstrip("dxXosfFeEgG").replace("#", "").replace("+", "").partition(".")[0]
    precision = conversion.python[1:-1].partition(".")[2] if conversion.form == "text" else ""
    return f"{width}s" % show(value)[: int(precision) if precision else None]
