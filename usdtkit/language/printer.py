"""The syntax tree → its text, with the fewest parentheses: names of values in the output, and a check of the parser."""

from __future__ import annotations

from usdtkit.language import nodes as n
from usdtkit.language.parser import PRECEDENCE

_UNARY = 11
_ATOM = 12


def expression(node: n.Node, least: int = 0) -> str:
    """The text of an expression, in parentheses where it binds less tightly than `least`."""
    text, strength = _written(node)
    return f"({text})" if strength < least else text


def _written(node: n.Node) -> tuple[str, int]:
    match node:
        case n.Number(value):
            return str(value), _ATOM
        case n.Text(data):
            return quoted(data), _ATOM
        case n.Name(name):
            return name, _ATOM
        case n.Unary(operator, value):
            inside = expression(value, _UNARY)
            # Two minuses are a token of C, and two stars none of ours to tell apart from.
            return f"{operator}{' ' if inside[:1] == operator else ''}{inside}", _UNARY
        case n.Cast(type, value):
            return f"({ctype(type)}){expression(value, _UNARY)}", _UNARY
        case n.Binary(operator, left, right):
            strength = PRECEDENCE[operator]
            return f"{expression(left, strength)} {operator} {expression(right, strength + 1)}", strength
        case n.Member(value, field):
            return f"{expression(value, _ATOM)}->{field}", _ATOM
        case n.Call(function, arguments):
            return f"{function}({', '.join(expression(argument) for argument in arguments)})", _ATOM


def ctype(type: n.CType) -> str:
    """The text of a type."""
    return f"{type.name} {'*' * type.pointers}".rstrip()


def quoted(data: bytes) -> str:
    """A string literal; what is not printable ASCII as an escape of three octal digits, which nothing can lengthen."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return '"' + "".join(plain.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in data) + '"'


def target(of: n.Target) -> str:
    """The text of a target."""
    offset = f"+{of.offset:#x}" if of.offset else ""
    if of.kind == "named":
        return f"{of.library}:{of.name}{offset}"
    if of.kind == "usdt":
        return ":".join(["u", of.library, *([of.provider] if of.provider else []), of.name])
    return f"{'p' if of.kind == 'entry' else 'r'}:{of.library}:{of.name}{offset}"


def trace(spec: n.TraceSpec) -> str:
    """The text of what `trace` takes."""
    text = target(spec.target) + (parameters(spec.parameters) if spec.parameters else "")
    if spec.predicate is not None:
        text += f" ({expression(spec.predicate)})"
    if spec.format is not None:
        text += " " + ", ".join([quoted(spec.format.data), *map(expression, spec.values)])
    return text


def distribution(spec: n.DistributionSpec) -> str:
    """The text of what `argdist` takes."""
    text = target(spec.target) + parameters(spec.parameters)
    if spec.values:
        text += f":{','.join(map(ctype, spec.types))}:{','.join(map(expression, spec.values))}"
        text += f":{expression(spec.predicate)}" if spec.predicate is not None else ""
    return text + (f"#{spec.label}" if spec.label else "")


def parameters(declared: tuple[n.Parameter, ...]) -> str:
    """The text of a signature."""
    return f"({', '.join(f'{ctype(one.type)} {one.name}'.rstrip() for one in declared)})"
