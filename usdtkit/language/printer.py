"""The syntax tree → text, with as few parentheses as possible.

Input: nodes. Output: text that `parser` reads as the same nodes. It names values in the output of tools, and tests use
it to check the parser.
"""

from __future__ import annotations

from usdtkit.language import nodes
from usdtkit.language.parser import PRECEDENCE
from usdtkit.naming import spelled, spelled_path

_UNARY = 11
_ATOM = 12


def expression(node: nodes.Node, min_strength: int = 0) -> str:
    """The text of an expression, in parentheses if it binds less tightly than `min_strength`."""
    text, strength = _written(node)
    return f"({text})" if strength < min_strength else text


def _written(node: nodes.Node) -> tuple[str, int]:
    match node:
        case nodes.Number(value):
            return str(value), _ATOM
        case nodes.Text(data):
            return quoted(data), _ATOM
        case nodes.Name(name):
            return name, _ATOM
        case nodes.Unary(operator, value):
            inside = expression(value, _UNARY)
            # Without the space, two minuses would read as C's operator --.
            return f"{operator}{' ' if inside[:1] == operator else ''}{inside}", _UNARY
        case nodes.Cast(type, value):
            return f"({ctype(type)}){expression(value, _UNARY)}", _UNARY
        case nodes.Binary(operator, left, right):
            strength = PRECEDENCE[operator]
            return f"{expression(left, strength)} {operator} {expression(right, strength + 1)}", strength
        case nodes.Member(value, field):
            return f"{expression(value, _ATOM)}->{field}", _ATOM
        case nodes.Call(function, arguments):
            return f"{function}({', '.join(expression(argument) for argument in arguments)})", _ATOM


def ctype(type: nodes.CType) -> str:
    """The text of a type."""
    return f"{type.name} {'*' * type.pointers}".rstrip()


def quoted(data: bytes) -> str:
    """A string literal. A byte that is not printable ASCII becomes an escape of three octal digits.

    An escape in hexadecimal would take in digits that follow it.
    """
    escaped = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return '"' + "".join(escaped.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in data) + '"'


def target(node: nodes.Target) -> str:
    """The text of a target."""
    library = spelled_path(node.library) if node.library else ""
    names = ":".join(spelled(name) for name in (node.provider, node.name) if name)
    if node.kind == "usdt":
        return f"u:{library}:{names}"
    kinds = {"entry": "p:", "return": "r:", "named": ""}
    return f"{kinds[node.kind]}{library}:{names}{f'+{node.offset:#x}' if node.offset else ''}"


def trace(spec: nodes.TraceSpec) -> str:
    """The text of a spec of `trace`."""
    text = target(spec.target) + (parameters(spec.parameters) if spec.parameters else "")
    if spec.predicate is not None:
        text += f" ({expression(spec.predicate)})"
    if spec.format is not None:
        text += " " + ", ".join([quoted(spec.format.data), *map(expression, spec.values)])
    return text


def distribution(spec: nodes.DistributionSpec) -> str:
    """The text of a spec of `argdist`."""
    text = target(spec.target) + parameters(spec.parameters)
    if spec.values:
        text += f":{','.join(map(ctype, spec.types))}:{','.join(map(expression, spec.values))}"
        text += f":{expression(spec.predicate)}" if spec.predicate is not None else ""
    return text + (f"#{spec.label}" if spec.label else "")


def parameters(declared: tuple[nodes.Parameter, ...]) -> str:
    """The text of a signature."""
    return f"({', '.join(f'{ctype(parameter.type)} {parameter.name}'.rstrip() for parameter in declared)})"
