"""What a function of a program consists of: expressions and statements, as `parser` finds them.

Nouns only. Names are not looked up yet, and nothing has a type but what the text says one of.
"""

from __future__ import annotations

from usdtkit.bpf.translator.types import Integer, Type
from usdtkit.records import dataclass


class Node:
    """An expression."""


@dataclass(eq=False)
class Number(Node):
    """A constant."""

    value: int
    type: Integer


@dataclass(eq=False)
class Name(Node):
    """A variable or a constant by its name."""

    name: str


@dataclass(eq=False)
class Unary(Node):
    """One of the operators - ~ ! * & before an expression."""

    operator: str
    value: Node


@dataclass(eq=False)
class Binary(Node):
    """An operator between two expressions, && and || included."""

    operator: str
    left: Node
    right: Node


@dataclass(eq=False)
class Assign(Node):
    """target = value; with an operator, as in `target += value`."""

    operator: str
    target: Node
    value: Node


@dataclass(eq=False)
class Step(Node):
    """++ or -- before an expression, or behind it."""

    by: int
    target: Node
    is_behind: bool


@dataclass(eq=False)
class Conditional(Node):
    """condition ? yes : no."""

    condition: Node
    yes: Node
    no: Node


@dataclass(eq=False)
class Cast(Node):
    """(type)value."""

    type: Type
    value: Node


@dataclass(eq=False)
class SizeOf(Node):
    """The size of a type, or of what an expression has."""

    of: Type | Node


@dataclass(eq=False)
class Call(Node):
    """A call of a function, of a helper of the kernel, or of a method of a map, such as "table.lookup"."""

    function: str
    arguments: list[Node]


@dataclass(eq=False)
class Member(Node):
    """structure.name, or pointer->name."""

    value: Node
    name: str
    is_arrow: bool


@dataclass(eq=False)
class Index(Node):
    """array[index]."""

    value: Node
    index: Node


@dataclass(eq=False)
class Block(Node):
    """Statements in braces. As an expression, ({ … }), it has the value of the last one."""

    statements: list[Statement]


@dataclass(eq=False)
class Initialiser(Node):
    """Values in braces, by member or in order ("" for the name); what is not named is 0."""

    values: list[tuple[str, Node]]


@dataclass(eq=False)
class Declare:
    """A variable."""

    name: str
    type: Type
    value: Node | None


@dataclass(eq=False)
class Evaluate:
    """An expression for what it does."""

    value: Node


@dataclass(eq=False)
class If:
    """A condition, and what is done in each case."""

    condition: Node
    yes: Statement
    no: Statement | None


@dataclass(eq=False)
class For:
    """A loop; one that is written as `while` has neither a beginning nor a step."""

    first: list[Statement]
    condition: Node | None
    step: Node | None
    body: Statement


@dataclass(eq=False)
class Switch:
    """A choice among numbers: for each, None standing for all others, the position in `body` where it goes on."""

    value: Node
    cases: list[tuple[int | None, int]]
    body: list[Statement]


@dataclass(eq=False)
class Return:
    """The end of a function."""

    value: Node | None


@dataclass(eq=False)
class Leave:
    """`break` or `continue`."""

    word: str


@dataclass(eq=False)
class Pin:
    """A variable that must stay in a register: `asm volatile("" : "+r"(name))`, which keeps clang from optimising."""

    name: str


Statement = Declare | Evaluate | If | For | Switch | Return | Leave | Pin | Block


@dataclass(eq=False)
class Function:
    """A function: what it returns, its parameters and its statements.

    `changed` are names that it assigns to behind their declarations, and `addressed` those whose addresses it takes.
    """

    name: str
    result: Type
    parameters: list[tuple[str, Type]]
    statements: list[Statement]
    changed: set[str]
    addressed: set[str]
