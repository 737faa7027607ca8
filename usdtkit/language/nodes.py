"""The syntax tree of the languages: `parser` builds it; `printer`, `select` and `lower` read it.

The field `at` is the position in the text at which a node begins. Comparisons of nodes ignore it.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.records import dataclass, field

At = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CType:
    """A C type: the words of its name without qualifiers ("unsigned int", "struct timespec"), and how many `*`."""

    name: str
    pointers: int = 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a signature. Its name may be empty."""

    type: CType
    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, or a character, which is the integer that encodes it."""

    value: int
    at: int = At


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal, as bytes."""

    data: bytes
    at: int = At


@dataclass(frozen=True, slots=True)
class Name:
    """The name of an argument, or of something that every probe has. It may begin with `$`."""

    name: str
    at: int = At


@dataclass(frozen=True, slots=True)
class Unary:
    """An operator before its operand: - ! ~, or * to read memory."""

    operator: str
    value: Node
    at: int = At


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Node
    right: Node
    at: int = At


@dataclass(frozen=True, slots=True)
class Cast:
    """(type)value"""

    type: CType
    value: Node
    at: int = At


@dataclass(frozen=True, slots=True)
class Member:
    """value->field"""

    value: Node
    field: str
    at: int = At


@dataclass(frozen=True, slots=True)
class Call:
    """function(arguments), such as STRCMP("text", path)."""

    function: str
    arguments: tuple[Node, ...]
    at: int = At


Node = Number | Text | Name | Unary | Binary | Cast | Member | Call

TargetKind = Literal["entry", "return", "usdt", "named"]


@dataclass(frozen=True, slots=True)
class Target:
    """What to attach to. The kind "named" is NAME:NAME: a function of a library, or a probe of a provider.

    `library` and `provider` are empty if the text leaves them out. `name` is the name of a function or a probe, and
    `offset` counts bytes from the start of the function.
    """

    kind: TargetKind
    library: str
    name: str
    provider: str = ""
    offset: int = 0
    at: int = At


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """TARGET(parameters) (predicate) "format", values: a spec of `trace`, with its whole text."""

    text: str = field(compare=False, repr=False)
    target: Target
    parameters: tuple[Parameter, ...] = ()
    predicate: Node | None = None
    format: Text | None = None
    values: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class DistributionSpec:
    """TARGET(parameters):types:values:predicate#label: a spec of `argdist`, with its whole text."""

    text: str = field(compare=False, repr=False)
    target: Target
    parameters: tuple[Parameter, ...] = ()
    types: tuple[CType, ...] = ()
    values: tuple[Node, ...] = ()
    predicate: Node | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class ExpressionSpec:
    """An expression by itself, such as the key by which the two ends of a latency are matched."""

    text: str = field(compare=False, repr=False)
    value: Node
