"""Instructions over as many registers as a program likes, between `lowering` and `allocation`.

They are those of BPF, with these differences: registers are virtual, jumps go to labels, and the arguments of a call
stand in the call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from usdtkit.records import NamedTuple


class Register:
    """A virtual register. `is_pinned` ones never go to the stack, because the verifier must see what bounds them."""

    __slots__ = ("is_pinned", "number", "place", "twin")

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_pinned = False
        self.twin: Register | None = None
        """One that it is copied from or to, whose place is the best for it."""
        self.place = 0
        """Set by `allocation`: the number of a register, or a negative offset in the stack."""


FRAME = Register(-1)
FRAME.place = 10


class Address(NamedTuple):
    """A pointer that was not calculated yet: what is in a register, and so many bytes more."""

    base: Register
    offset: int


class MapReference(NamedTuple):
    """A map, by its number in the bytecode."""

    number: int


Operand = int | Register | Address | MapReference

Kind = Literal[
    "context",
    "move",
    "move32",
    "alu",
    "alu32",
    "load",
    "store",
    "atomic",
    "constant",
    "filled",
    "call",
    "if",
    "goto",
    "label",
    "return",
]


_EFFECTS = frozenset({"store", "atomic", "call", "if", "goto", "label", "return"})


class Label:
    """A place that jumps go to."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = -1


class Instruction:
    """One instruction; which of the attributes mean something depends on its kind.

    - context: result = what the kernel calls the program with
    - move, move32: result = the source, or its lower half
    - alu, alu32: result = source 0, which is the result, `number` source 1
    - load: result = `number` bytes at source 0 + offset
    - store, atomic: write, or add, source 1 to `number` bytes at source 0 + offset
    - constant: result = the 64 bits of `number`
    - filled: result = what the loader puts in the place of `number`; `offset` says which kind that is
    - call: result = the helper `number` of the sources
    - if: go to `label` if source 0 `number` source 1
    """

    __slots__ = ("kind", "label", "loops", "number", "offset", "result", "sources")

    def __init__(
        self,
        kind: Kind,
        result: Register | None = None,
        sources: Sequence[Operand] = (),
        number: int = 0,
        offset: int = 0,
        label: Label | None = None,
    ) -> None:
        self.kind = kind
        self.result = result
        self.sources = tuple(sources)
        self.number = number
        self.offset = offset
        self.label = label
        self.loops = 0

    def read(self) -> Iterator[Register]:
        """The virtual registers that it reads."""
        for source in self.sources:
            register = source.base if isinstance(source, Address) else source
            if isinstance(register, Register) and register is not FRAME:
                yield register

    @property
    def has_effect(self) -> bool:
        """Whether it does something besides setting its result."""
        return self.kind in _EFFECTS

    @property
    def goes_on(self) -> bool:
        """Whether the next instruction can follow it."""
        return self.kind not in ("goto", "return")
