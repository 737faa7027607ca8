"""A pattern and the expression of a key → the places of the pattern, and the values of its condition and the key there.

Input: two texts, such as "shop:order__start" and "order_id", and a session. Output: one side of a pair.
"""

from __future__ import annotations

from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_pattern
from usdtkit.language.select import resolve_single
from usdtkit.records import dataclass
from usdtkit.trace import Expression, Resolved, Session


@dataclass(frozen=True)
class Side:
    """One side of a pair: its places, and there its condition and its key, or None where there are none."""

    places: Resolved
    condition: Expression | None
    key: Expression | None


def side(session: Session, text: str, key: str | None = None) -> Side:
    """The one target of `text`, with the condition of `text` and the value of `key` there. SpecError, NotFoundError."""
    spec = parse_pattern(text)
    places = resolve_single(session, spec)
    lowering = Lowering(text, places.kind, places.arguments, spec.parameters)
    condition = None if spec.predicate is None else lowering.condition(spec.predicate)
    return Side(places, condition, None if key is None else lowering.number_of(key))
