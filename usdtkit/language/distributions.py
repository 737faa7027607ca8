"""Specs of `argdist` in a session: the tables that count or collect values for them.

Input: text from a user, and what all specs of a run share (`hooks.Setup`). Output: `Distributed`, which reads the
tables of one spec.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from usdtkit.errors import SpecError
from usdtkit.language import nodes, printer
from usdtkit.language.hooks import Setup
from usdtkit.language.parser import parse_distribution
from usdtkit.language.typenames import I32, integer_type, is_text
from usdtkit.records import dataclass, field
from usdtkit.trace import Counts, Distribution, Histogram

NO_VALUES = "total calls"


@dataclass
class Distributed:
    """One spec of `argdist`: its title, the names of its keys or of its value, and the tables that count for it."""

    title: str
    names: tuple[str, ...]
    tables: list[Counts | Histogram] = field(default_factory=list)

    def counts(self, *, cumulative: bool) -> list[tuple[tuple[Any, ...], int]]:
        """Pairs of a key and its count since the start, or else since the last call; the rarest come first."""
        total: Counter[tuple[Any, ...]] = Counter()
        for table in self.tables:
            if isinstance(table, Counts):
                total.update(table.read() if cumulative else table.delta())
        counted = [(key, count) for key, count in total.items() if count]
        return sorted(counted, key=lambda item: (item[1], repr(item[0])))

    def distribution(self, *, cumulative: bool) -> Distribution:
        """All values since the start, or else since the last call."""
        tables = [table for table in self.tables if isinstance(table, Histogram)]
        return Distribution.total((table.read() if cumulative else table.delta())[()] for table in tables)


def distribute(setup: Setup, text: str, *, histogram: bool, linear: tuple[int, int, int] | None = None) -> Distributed:
    """Set up the counts, or the histogram, of an `argdist` spec. SpecError, NotFoundError."""
    spec = parse_distribution(text)
    values, types = spec.values, spec.types
    if not values and spec.target.kind == "return":
        values, types = (nodes.Name("retval"),), (I32,)
    if histogram and (len(values) != 1 or is_text(types[0]) or integer_type(types[0]) is None):
        raise SpecError(
            "a histogram needs exactly one number",
            text,
            values[0].at if values else len(text),
            hint="TARGET(parameters):size_t:size; -C counts by several values, and by strings",
        )
    names = tuple(printer.expression(value) for value in values)
    distributed = Distributed(spec.label or text, names or (NO_VALUES,))
    for hook in setup.hooks(spec):
        keys = [hook.lowering.typed(value, type) for value, type in zip(values, types, strict=True)]
        source = hook.source()
        if histogram:
            distributed.tables.append(source.hist(keys[0], linear=linear))
        else:
            distributed.tables.append(source.count(**{f"key_{number}": key for number, key in enumerate(keys)}))
    return distributed
