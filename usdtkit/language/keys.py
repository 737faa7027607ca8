"""A target and the expression of a key → the places of the target, and the value of the key there.

Input: two texts, such as "shop:order__start" and "order_id", and a session. Output: one side of a pair, as
`Session.pair` takes it, and the key of that side.
"""

from __future__ import annotations

from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_expression, parse_trace
from usdtkit.language.select import resolve_single
from usdtkit.trace import Expression, Resolved, Session


def resolve_with_key(session: Session, text: str, key: str | None) -> tuple[Resolved, Expression | None]:
    """The one target of `text`, and the value of `key` there, or None without a key. SpecError, NotFoundError."""
    spec = parse_trace(text)
    resolved = resolve_single(session, spec)
    if key is None:
        return resolved, None
    lowering = Lowering(key, resolved.kind, resolved.arguments, spec.parameters)
    return resolved, lowering.number(parse_expression(key).value)
