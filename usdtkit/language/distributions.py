"""Specs of `argdist` in a session: the tables that count, sum up or collect values for them.

Input: text from a user, and what all specs of a run share (`hooks.Setup`). Output: `Distributed`, which reads the
tables of one spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from usdtkit.errors import SpecError
from usdtkit.language import nodes, printer
from usdtkit.language.hooks import Setup
from usdtkit.language.parser import parse_distribution
from usdtkit.language.typenames import I32, integer_type, is_text
from usdtkit.records import dataclass, field
from usdtkit.trace import Counts, Expression, Histogram, Source, StatisticsTable

Kind = Literal["count", "hist", "sum", "avg", "min", "max", "stats"]
"""What is collected: how often each combination of values occurs, or something of the last value by those before it."""
_NOUNS = {"hist": "a histogram", "sum": "a sum", "avg": "an average", "min": "a minimum", "max": "a maximum"}
_SIZES = {"hist": "count", "avg": "average", "stats": "sum"}  # by which attribute results are sorted, if not their kind


@dataclass
class Distributed:
    """One spec: its title, what it collects, and the names of its keys and of the value that is measured ("" if none).

    `tables` collect it in the kernel: one for all functions, or one for each probe.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...]
    value: str = ""
    tables: list[Counts | Histogram | StatisticsTable] = field(default_factory=list)

    def read(self, *, cumulative: bool) -> list[tuple[dict[str, Any], Any]]:
        """Pairs of a key and its count, `Statistics` or `Distribution`, since the start or the last call.

        Keys are their values by name. The smallest results come first.
        """
        total: dict[tuple[Any, ...], Any] = {}
        for table in self.tables:
            for key, result in (table.read() if cumulative else table.delta()).items():
                total[key] = total[key] + result if key in total else result
        results = [item for item in total.items() if item[1]]
        results.sort(key=lambda item: (self._size(item[1]), repr(item[0])))
        return [(dict(zip(self.keys, key, strict=True)), result) for key, result in results]

    def _size(self, result: Any) -> float:
        size: float = result if self.kind == "count" else getattr(result, _SIZES.get(self.kind, self.kind))
        return size


def distribute(
    setup: Setup,
    text: str,
    kind: Kind,
    *,
    linear: tuple[int, int, int] | None = None,
    cumulative: bool = False,
) -> Distributed:
    """Set up what a spec collects; if `cumulative`, for looks that begin at the start. SpecError, NotFoundError."""
    spec = parse_distribution(text)
    values, types = spec.values, spec.types
    if not values and spec.target.kind == "return":
        values, types = (nodes.Name("retval"),), (I32,)
    keys, measured = values, ""
    if kind != "count":
        if not values or is_text(types[-1]) or integer_type(types[-1]) is None:
            raise SpecError(
                f"{_NOUNS.get(kind, 'this')} needs a number as the last value",
                text,
                values[-1].at if values else len(text),
                hint="TARGET(parameters):size_t:size, or by others: TARGET(parameters):int,size_t:fd,size",
            )
        keys, measured = values[:-1], _name(values[-1])
    distributed = Distributed(spec.label or text, kind, tuple(map(printer.expression, keys)), measured)
    for hook in setup.hooks(spec):
        lowered = [hook.lowering.typed(value, type) for value, type in zip(values, types, strict=True)]
        distributed.tables.append(_table(hook.source(), kind, lowered, linear, anew=not cumulative))
    return distributed


def _name(value: nodes.Node) -> str:
    """The name of a measured value, with its unit if that is known."""
    return "latency_ns" if value == nodes.Name("$latency") else printer.expression(value)


def _table(
    source: Source, kind: Kind, values: Sequence[Expression], linear: tuple[int, int, int] | None, *, anew: bool
) -> Counts | Histogram | StatisticsTable:
    if kind == "count":
        return source.count(**_numbered(values))
    keys = _numbered(values[:-1])
    if kind == "hist":
        return source.hist(values[-1], linear=linear, **keys)
    return source.stats(values[-1], anew=anew, **keys)


def _numbered(keys: Sequence[Expression]) -> dict[str, Any]:
    return {f"key_{number}": key for number, key in enumerate(keys)}
