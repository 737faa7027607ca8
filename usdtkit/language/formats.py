"""A format string of `trace` → the type that each conversion takes, and the text for values.

Input: the literal and the values of a `TraceSpec`. Output: C types for `lower`, and lines of text. The conversions are
C's, without `*`. Two are added: `%U` is a symbol of the process, and `%r` is bytes in hexadecimal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from usdtkit.errors import SpecError
from usdtkit.language import nodes
from usdtkit.language.lower import Lowering
from usdtkit.language.typenames import STRING, U64
from usdtkit.output.text import show_argument
from usdtkit.records import dataclass
from usdtkit.trace import Expression

_CONVERSION = re.compile(
    rb"%(?:%|(?P<flags>[-+ #0]{0,5})(?P<width>[0-9]{0,3})(?P<precision>\.[0-9]{0,3})?"
    rb"(?P<length>hh|h|ll|l|z|j|t)?(?P<letter>[a-zA-Z]))"
)
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "z": 64, "j": 64, "t": 64}
Form = Literal["number", "text", "float", "symbol", "bytes"]


@dataclass(frozen=True)
class Conversion:
    """One `%…` of a format: the form and type of value that it takes, and how Python spells it ("%-8d")."""

    form: Form
    type: nodes.CType
    python: str

    @property
    def is_number(self) -> bool:
        """Whether it takes a number, and not a text."""
        return self.form in ("number", "float")

    @property
    def of_text(self) -> str:
        """How Python spells it for the text of a value ("%-8s")."""
        return self.python.rstrip("dxXosfFeEgG").replace("#", "").replace("+", "").partition(".")[0] + "s"

    def maker(self) -> Callable[[Any], str] | None:
        """What makes the printable text of a value; None for a number, of which none is made."""
        if self.is_number:
            return None
        return show_argument if self.type == STRING and "." not in self.python else self.text

    def text(self, value: Any) -> str:
        """The printable text of a value, as much of it as the conversion takes."""
        if self.type.name == "u8" and self.form == "text" and isinstance(value, int):
            value = chr(value)
        precision = self.python[1:-1].partition(".")[2] if self.form == "text" else ""
        return show_argument(value)[: int(precision) if precision else None]

    def lower(self, lowering: Lowering, node: nodes.Node) -> Expression:
        """The expression that reads a value for this conversion."""
        if self.form == "text" and self.type == STRING:
            return lowering.shown(node) if lowering.has_names(node) else lowering.string(node)
        return lowering.counted(node) if self.form == "bytes" else lowering.typed(node, self.type)


class Format:
    """The format of a spec. It has as many values as conversions, or else making it raises SpecError."""

    def __init__(self, spec: nodes.TraceSpec) -> None:
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
                f"the format has {len(self.conversions)} conversions, but {len(spec.values)} values follow it",
                spec.text,
                surplus[0].at if surplus else spec.format.at,
                hint="each % takes one value; %% is a percent sign",
            )

        # Most formats are one template of Python's, for which texts are made printable before.
        self._template: str | None = None
        self._texts = [conversion.maker() for conversion in self.conversions]
        if not any(conversion.form == "symbol" for conversion in self.conversions):
            self._template = "".join(
                piece.replace("%", "%%")
                if isinstance(piece, str)
                else piece.python
                if piece.is_number
                else piece.of_text
                for piece in self._pieces
            )

    @property
    def conversions(self) -> list[Conversion]:
        """The conversions that take a value, in order."""
        return [piece for piece in self._pieces if isinstance(piece, Conversion)]

    def _literal(self, spec: nodes.TraceSpec, data: bytes) -> None:
        if b"%" in data:
            assert spec.format is not None
            raise SpecError(
                "this % does not begin a conversion", spec.text, spec.format.at, hint="%% is a percent sign"
            )
        self._pieces.append(data.decode("utf-8", "surrogateescape"))

    def fill(self, values: Sequence[Any], pid: int, symbol: Callable[[int, int], str]) -> str:
        """The text with these values. `symbol` names an address of the process `pid`; a string whose pointer is NULL is
        shown as "null"."""
        if self._template is not None:
            texts = zip(self._texts, values)  # noqa: B905  as many as there are conversions
            try:
                return self._template % tuple([value if text is None else text(value) for text, value in texts])
            except (TypeError, ValueError, OverflowError):
                pass  # where a number is expected, there is something that is shown as a text
        remaining = iter(values)
        return "".join(
            piece if isinstance(piece, str) else _written(piece, next(remaining), pid, symbol) for piece in self._pieces
        )


def _conversion(spec: nodes.TraceSpec, match: re.Match[bytes]) -> Conversion:
    flags, width, precision, length, letter = ((match[name] or b"").decode() for name in _GROUPS)
    bits = _BITS[length]
    head = f"%{flags}{width}{precision}"
    match letter:
        case "d" | "i":
            return Conversion("number", nodes.CType(f"i{bits}"), f"{head}d")
        case "u":
            return Conversion("number", nodes.CType(f"u{bits}"), f"{head}d")
        case "x" | "X" | "o":
            return Conversion("number", nodes.CType(f"u{bits}"), f"{head}{letter}")
        case "c":
            return Conversion("text", nodes.CType("u8"), f"{head}s")
        case "p":
            return Conversion("number", U64, f"%#{flags}{width}x")
        case "f" | "F" | "e" | "E" | "g" | "G":
            return Conversion("float", nodes.CType("double"), f"{head}{letter}")
        case "s":
            return Conversion("text", STRING, f"{head}s")
        case "r":
            return Conversion("bytes", STRING, f"{head}s")
        case "U":
            return Conversion("symbol", U64, f"{head}s")
    message, hint = f"there is no conversion %{letter}", "d u x o c s p f, %U for a symbol, %r for bytes in hexadecimal"
    if letter == "K":
        message = "%K is a symbol of the kernel, and usdtkit does not trace kernel functions"
        hint = "%U is a symbol of the process"
    assert spec.format is not None
    raise SpecError(message, spec.text, spec.format.at, hint=hint)


_GROUPS = ("flags", "width", "precision", "length", "letter")


def _written(conversion: Conversion, value: Any, pid: int, symbol: Callable[[int, int], str]) -> str:
    if conversion.is_number and isinstance(value, (int, float)):
        return conversion.python % value
    return conversion.of_text % conversion.text(symbol(pid, value) if conversion.form == "symbol" else value)
