"""What expressions become once their names are resolved: leaves with C text, and arithmetic on C text.

Made by `names` and `access`, read by `render`. The classes are expressions, so that they can stand in a user's
expression wherever a name stood. The functions know nothing of a probe.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field
from usdtkit.records import dataclass

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")

Integer = tuple[str, bool]
"""The C of an integer that is 64 bits wide, and whether it is signed."""


@dataclass(eq=False, repr=False)
class IntegerValue(ex.Expression):
    """An integer. With `names` of an enum, readers see a name in its place."""

    c: str
    kind: Literal["u64", "i64", "bool", "probe"] = "u64"
    names: tuple[tuple[str, int], ...] = ()


@dataclass(eq=False, repr=False)
class FloatBits(ex.Expression):
    """The bits of a double."""

    c: str


@dataclass(eq=False, repr=False)
class OptionalNumber(ex.Expression):
    """A number that may be None: `value` is 0 then, and so is the integer `present`, which is 1 otherwise."""

    value: IntegerValue | FloatBits
    present: str


@dataclass(eq=False, repr=False)
class StackId(ex.Expression):
    """The number of a stack, by which `usdtkit.trace.stacks` knows it: it stands for the stack, or for its innermost
    Python function."""

    c: str
    kind: Literal["stack", "pyframe"] = "stack"


@dataclass(eq=False, repr=False)
class CommandName(ex.Expression):
    """The name of the thread that runs."""


@dataclass(eq=False, repr=False)
class Kept(ex.Expression):
    """What is kept from an earlier hit, in the field `index` of a struct: of what the start of a pair has kept, or of
    a thread's values."""

    index: int
    field: Field
    struct: str = "s"

    @property
    def c(self) -> str:
        """The C of the field."""
        return f"{self.struct}->f{self.index}"


def cast(c: str, type: str) -> Integer:
    """An integer narrowed to a type such as "u8", and widened again."""
    signed = type.startswith("i")
    narrow = f"({'s' if signed else 'u'}{type[1:]})({c})"
    return (f"(s64){narrow}", True) if signed else (f"(u64){narrow}", False)


def binary(operator: str, left: Integer, right: Integer) -> Integer:
    """Two integers with one of Python's operators between them; `/` and `%` round down, as Python's do."""
    (a, a_signed), (b, b_signed) = left, right
    if operator in COMPARISONS:
        if a_signed == b_signed:
            return f"(u64)({a} {operator} {b})", False
        # C would convert the signed one to unsigned first.
        order = f"order({a}, {b}) {operator} 0" if a_signed else f"0 {operator} order({b}, {a})"
        return f"(u64)({order})", False
    if operator in ("<<", ">>"):
        return f"(({a}) {operator} (({b}) & 63))", a_signed
    signed = (a_signed and b_signed) if operator == "&" else (a_signed or b_signed)
    if signed:
        a, b = f"(s64)({a})", f"(s64)({b})"
    if operator in ("/", "%") and signed:  # BPF has no signed division
        return f"signed_{'divide' if operator == '/' else 'modulo'}({a}, {b})", True
    return f"(({a}) {operator} ({b}))", signed
