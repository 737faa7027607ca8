"""Constant expressions → their value, computed as C computes it.

Input: a node of the syntax tree. Output: a number, or None for an expression that reads anything. Used by `lower`,
because the expressions of `usdtkit.bpf` have no operators between two constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from usdtkit.language import nodes

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "/": operator.floordiv,
    "%": operator.mod,
    "<<": lambda value, bits: value << (bits & 63),
    ">>": lambda value, bits: value >> (bits & 63),
}


class DivisionByZero(ArithmeticError):
    """A division of two constants has no value. `node` is the division."""

    def __init__(self, node: nodes.Node) -> None:
        self.node = node


def constant(node: nodes.Node) -> int | None:
    """The value of an expression of numbers alone, or None for any other. DivisionByZero."""
    match node:
        case nodes.Number(number):
            return number
        case nodes.Unary("-" | "~" as symbol, inner):
            value = constant(inner)
            return None if value is None else _wrapped(-value if symbol == "-" else ~value)
        case nodes.Binary(symbol, left, right) if symbol in _OPERATORS:
            left_value, right_value = constant(left), constant(right)
            if left_value is None or right_value is None:
                return None
            if symbol in ("/", "%") and not right_value:
                raise DivisionByZero(node)
            return _wrapped(_OPERATORS[symbol](left_value, right_value))
    return None


def _wrapped(value: int) -> int:
    """The value in 64 bits with a sign. A number above these, which C takes for an unsigned one, stays as it is."""
    return value if -(2**63) <= value < 2**63 else (value + 2**63) % 2**64 - 2**63
