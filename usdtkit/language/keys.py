"""A target and the expression of a key → where the target is, and the key's value there.

Input: two texts, such as "shop:order__start" and "order_id". Output: what `Session.pair` takes as an end and its key.
"""

from __future__ import annotations

from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_expression, parse_trace
from usdtkit.language.select import one
from usdtkit.trace import Expression, Session
from usdtkit.trace.specs import Resolved


def one_with_key(session: Session, text: str, key: str | None) -> tuple[Resolved, Expression | None]:
    """The one target of `text`, and the value of `key` there, or None without a key. SpecError, NotFoundError."""
    spec = parse_trace(text)
    resolved = one(session, spec)
    if key is None:
        return resolved, None
    lowering = Lowering(key, resolved.kind, resolved.arguments, spec.parameters)
    return resolved, lowering.number(parse_expression(key).value)
