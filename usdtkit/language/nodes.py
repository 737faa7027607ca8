"""The syntax tree of the mini-languages: what `parser` makes, and `printer`, `select` and `lower` read.

`at` is where a node begins in the text; it counts for nothing when nodes are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

At = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CType:
    """A C type: the words of its name without qualifiers ("unsigned int", "struct timespec"), and how many `*`."""

    name: str
    pointers: int = 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a signature; its name may be ""."""

    type: CType
    name: str


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    at: int = At


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal."""

    data: bytes
    at: int = At


@dataclass(frozen=True, slots=True)
class Name:
    """An argument, or something that every probe knows; perhaps with `$` before it."""

    name: str
    at: int = At


@dataclass(frozen=True, slots=True)
class Unary:
    """`operator` is one of - ! ~ and *, which reads memory."""

    operator: str
    value: Node
    at: int = At


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Node
    right: Node
    at: int = At


@dataclass(frozen=True, slots=True)
class Cast:
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
    function: str
    arguments: tuple[Node, ...]
    at: int = At


Node = Number | Text | Name | Unary | Binary | Cast | Member | Call

TargetKind = Literal["entry", "return", "usdt", "named"]


@dataclass(frozen=True, slots=True)
class Target:
    """What to attach to. `named` is NAME:NAME, a function of a library or a probe of a provider.

    `library` and `provider` are "" where they were left out; `name` is of a function or probe, `offset` from its start.
    """

    kind: TargetKind
    library: str
    name: str
    provider: str = ""
    offset: int = 0
    at: int = At


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """TARGET(parameters) (predicate) "format", values."""

    text: str = field(compare=False, repr=False)
    target: Target
    parameters: tuple[Parameter, ...] = ()
    predicate: Node | None = None
    format: Text | None = None
    values: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class DistributionSpec:
    """TARGET(parameters):types:values:predicate#label."""

    text: str = field(compare=False, repr=False)
    target: Target
    parameters: tuple[Parameter, ...] = ()
    types: tuple[CType, ...] = ()
    values: tuple[Node, ...] = ()
    predicate: Node | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class ExpressionSpec:
    """An expression by itself, such as the key of a latency."""

    text: str = field(compare=False, repr=False)
    value: Node
