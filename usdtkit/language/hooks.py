"""Specs of `trace` and `argdist` in a session: their targets found, their expressions lowered, their actions set up.

Input: text of a user, and a session. Output: rows of events (`Messages`), tables of counts and histograms
(`Distributions`). Stands on all other modules of the package; used by the tools.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from usdtkit.bpf.expressions import lift
from usdtkit.errors import SpecError
from usdtkit.language import nodes as n
from usdtkit.language import printer, select
from usdtkit.language.formats import Format
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_distribution, parse_trace
from usdtkit.language.typenames import I32, integer_type, is_text
from usdtkit.trace import Counts, Distribution, Expression, Histogram, Session, Source, comm
from usdtkit.trace.specs import Resolved

HEADER = ("time_ns", "pid", "tid", "comm", "probe")
NO_VALUES = "total calls"


@dataclass
class Hook:
    """One probe, or the functions, of a spec: `lowering` for its expressions, and after them its source."""

    session: Session
    lowering: Lowering
    resolved: Resolved
    entry: Resolved | None = None

    def source(self) -> Source:
        """Hits; at returns also with what the lowered expressions keep of the entry."""
        if self.lowering.is_pair and self.entry is not None:
            return self.session.pair(self.entry, keep=self.lowering.kept)
        return self.session.source(self.resolved)


@dataclass
class Setup:
    """What all specs of a run share: the session, `narrow` with the conditions of its options, bytes of a string."""

    session: Session
    narrow: Callable[[Source], Source]
    string_size: int = 128
    binary: bool = False

    def hooks(self, spec: n.TraceSpec | n.DistributionSpec) -> Iterator[Hook]:
        """Where a spec leads: each USDT probe by itself, or all functions of a name. NotFoundError, SpecError."""
        target = spec.target
        if target.kind == "return":
            function = select.function_spec(self.session, replace(target, kind="entry"))
            entry = self.session.resolve(function)
            before = self._lowering(spec, entry)
            after = Lowering(spec.text, "return", entry=before, string_size=self.string_size, binary=self.binary)
            yield Hook(self.session, after, entry.returning(), entry)
            return
        for resolved in select.resolve(self.session, spec.text, target):
            if resolved.kind == "usdt" and spec.parameters:
                raise SpecError("a USDT probe has no signature", spec.text, target.at, hint="its arguments: arg1 …")
            yield Hook(self.session, self._lowering(spec, resolved), resolved)

    def _lowering(self, spec: n.TraceSpec | n.DistributionSpec, resolved: Resolved) -> Lowering:
        return Lowering(
            spec.text, resolved.kind, resolved.arguments, spec.parameters, self.string_size, binary=self.binary
        )


@dataclass
class Message:
    """How the values of one spec become a row: their names, and the text of the format, if it has one."""

    format: Format | None
    names: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by what they are called in the spec."""
        return dict(zip(self.names, values.values(), strict=False))


class Messages:
    """Events of `trace` specs, with the expressions `extra` in each of them besides."""

    def __init__(self, setup: Setup, extra: Mapping[str, Expression]) -> None:
        self._setup = setup
        self._extra = {"comm": comm, **extra}
        self._messages: list[Message] = []

    def add(self, text: str) -> None:
        """Set up the events of a spec. SpecError, NotFoundError."""
        spec = parse_trace(text)
        format = None if spec.format is None else Format(spec)
        for hook in self._setup.hooks(spec):
            lowering = hook.lowering
            condition = None if spec.predicate is None else lowering.condition(spec.predicate)
            if format is not None:
                pairs = zip(spec.values, format.conversions, strict=True)
                values = [(printer.expression(node), conversion.lower(lowering, node)) for node, conversion in pairs]
                source = hook.source()
            elif spec.parameters and hook.entry is None:
                named = [one for one in spec.parameters if one.name]
                values = [(one.name, lowering.shown(n.Name(one.name))) for one in named]
                source = hook.source()
            else:
                source = hook.source()
                values = [*source.everything().items()]
            self._emit(source if condition is None else source.where(condition), values, format)

    def _emit(self, source: Source, values: Sequence[tuple[str, Expression]], format: Format | None) -> None:
        # The names of its fields tell of which spec an event is.
        prefix = f"of_{len(self._messages)}_"
        fields = {f"{prefix}{number}": value for number, (_, value) in enumerate(values)}
        self._messages.append(Message(format, tuple(name for name, _ in values)))
        self._setup.narrow(source).emit(**self._extra, **(fields or {prefix: lift(0)}))

    def stop(self) -> None:
        """End the session of the events."""
        self._setup.session.stop()

    def row(self, event: Any) -> dict[str, Any]:
        """The header of an event, `extra`, `arguments`, and `message` where its spec has a format."""
        values = event._asdict()
        row = {name: values.pop(name) for name in (*HEADER[:3], "comm", "probe", *self._extra) if name in values}
        own = {name: value for name, value in values.items() if name.startswith("of_")}
        message = self._messages[int(next(iter(own)).split("_")[1])]
        row["arguments"] = message.arguments(own)
        if message.format is not None:
            row["message"] = message.format.fill(list(own.values()), functools.partial(self._symbol, event.pid))
        return row

    def _symbol(self, pid: int, address: int) -> str:
        return self._setup.session.symbol(pid, address).label


@dataclass
class Distributed:
    """One spec of `argdist`: its title, the names of its keys or of its value, and the tables that count for it."""

    title: str
    names: tuple[str, ...]
    tables: list[Counts | Histogram] = field(default_factory=list)

    def counts(self, *, cumulative: bool) -> list[tuple[tuple[Any, ...], int]]:
        """(key, count) since the start, or the last call, the rarest first."""
        total: Counter[tuple[Any, ...]] = Counter()
        for table in self.tables:
            if isinstance(table, Counts):
                total.update(table.read() if cumulative else table.delta())
        counted = [(key, count) for key, count in total.items() if count]
        return sorted(counted, key=lambda item: (item[1], repr(item[0])))

    def distribution(self, *, cumulative: bool) -> Distribution:
        """All values since the start, or the last call."""
        tables = [table for table in self.tables if isinstance(table, Histogram)]
        return Distribution.total((table.read() if cumulative else table.delta())[()] for table in tables)


def distribute(setup: Setup, text: str, *, histogram: bool, linear: tuple[int, int, int] | None = None) -> Distributed:
    """Set up the counts, or the histogram, of an `argdist` spec. SpecError, NotFoundError."""
    spec = parse_distribution(text)
    nodes, types = spec.values, spec.types
    if not nodes and spec.target.kind == "return":
        nodes, types = (n.Name("retval"),), (I32,)
    if histogram and (len(nodes) != 1 or is_text(types[0]) or integer_type(types[0]) is None):
        raise SpecError(
            "a histogram is of one number",
            text,
            nodes[0].at if nodes else len(text),
            hint="TARGET(parameters):size_t:size; -C counts by several values, and by strings",
        )
    names = tuple(printer.expression(node) for node in nodes)
    found = Distributed(spec.label or text, names or (NO_VALUES,))
    for hook in setup.hooks(spec):
        values = [hook.lowering.typed(node, type) for node, type in zip(nodes, types, strict=True)]
        condition = None if spec.predicate is None else hook.lowering.condition(spec.predicate)
        source = setup.narrow(hook.source())
        source = source if condition is None else source.where(condition)
        if histogram:
            found.tables.append(source.hist(values[0], linear=linear))
        else:
            found.tables.append(source.count(**{f"key_{number}": value for number, value in enumerate(values)}))
    return found
