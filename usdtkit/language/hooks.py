"""Specs of `trace` and `argdist` in a session: finds their targets, lowers their expressions and sets up their actions.

Input: text from a user, and a session. Output: `Messages`, which describe events, and `Distributed`, the tables that
count or collect values. It uses all other modules of the package, and the tools use it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from usdtkit.bpf.expressions import lift
from usdtkit.errors import SpecError
from usdtkit.language import nodes, printer, select
from usdtkit.language.formats import Format
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_distribution, parse_trace
from usdtkit.language.typenames import I32, integer_type, is_text
from usdtkit.records import dataclass, field, replace
from usdtkit.trace import Counts, Distribution, Expression, Histogram, Resolved, Session, Source, comm

HEADER = ("time_ns", "pid", "tid", "comm", "probe")
NO_VALUES = "total calls"


@dataclass
class SpecHook:
    """One probe of a spec, or all its functions.

    `lowering` lowers the expressions of the spec here. Only when it has lowered all of them can `source` be made,
    because they decide what a return needs from its entry.
    """

    session: Session
    lowering: Lowering
    resolved: Resolved
    entry: Resolved | None = None

    def source(self) -> Source:
        """The hits; at a return, with what the lowered expressions keep from the entry."""
        if self.lowering.is_pair and self.entry is not None:
            return self.session.pair(self.entry, keep=self.lowering.kept)
        return self.session.source(self.resolved)


@dataclass
class Setup:
    """The settings that all specs of a run share.

    `string_size` is how many bytes of a string are read. With `binary`, STRCMP compares bytes.
    """

    session: Session
    string_size: int = 128
    binary: bool = False

    def hooks(self, spec: nodes.TraceSpec | nodes.DistributionSpec) -> Iterator[SpecHook]:
        """The hooks of a spec: one for each USDT probe, or one for all functions. NotFoundError, SpecError."""
        target = spec.target
        if target.kind == "return":
            function = select.function_spec(self.session, replace(target, kind="entry"))
            entry = self.session.resolve(function)
            at_entry = self._lowering(spec, entry)
            at_return = Lowering(spec.text, "return", entry=at_entry, string_size=self.string_size, binary=self.binary)
            yield SpecHook(self.session, at_return, entry.returning(), entry)
            return
        for resolved in select.resolve(self.session, spec.text, target):
            if resolved.kind == "usdt" and spec.parameters:
                hint = "its arguments are arg1, arg2 and so on"
                raise SpecError("a USDT probe has no signature", spec.text, target.at, hint=hint)
            yield SpecHook(self.session, self._lowering(spec, resolved), resolved)

    def _lowering(self, spec: nodes.TraceSpec | nodes.DistributionSpec, resolved: Resolved) -> Lowering:
        return Lowering(
            spec.text, resolved.kind, resolved.arguments, spec.parameters, self.string_size, binary=self.binary
        )


@dataclass
class Message:
    """How the values of one spec are shown: by their names, and in a format if the spec has one."""

    format: Format | None
    names: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by the names that they have in the spec."""
        return dict(zip(self.names, values.values(), strict=False))


class Messages:
    """The events of `trace` specs. Each of them also has the fields `extra`."""

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
            values = _values(spec, format, hook)
            source = hook.source()
            if values is None:
                values = [*source.everything().items()]
            self._emit(source if condition is None else source.where(condition), values, format)

    def _emit(self, source: Source, values: Sequence[tuple[str, Expression]], format: Format | None) -> None:
        # The names of an event's fields say which spec it belongs to.
        prefix = f"of_{len(self._messages)}_"
        fields = {f"{prefix}{number}": value for number, (_, value) in enumerate(values)}
        self._messages.append(Message(format, tuple(name for name, _ in values)))
        source.emit(**self._extra, **(fields or {prefix: lift(0)}))

    def carry(self, names: Sequence[str]) -> bool:
        """Whether a spec has values by all these names."""
        return any(set(names) <= {*message.names} for message in self._messages)

    def stop(self) -> None:
        """Stop the session."""
        self._setup.session.stop()

    def row(self, event: Any) -> dict[str, Any]:
        """An event as a row: its header, the fields `extra`, `arguments`, and `message` if its spec has a format."""
        values = event._asdict()
        row = {name: values.pop(name) for name in (*HEADER[:3], "comm", "probe", *self._extra) if name in values}
        arguments = {name: value for name, value in values.items() if name.startswith("of_")}
        message = self._messages[int(next(iter(arguments)).split("_")[1])]
        row["arguments"] = message.arguments(arguments)
        if message.format is not None:
            symbol = functools.partial(self._symbol, event.pid)
            row["message"] = message.format.fill(list(arguments.values()), symbol)
        return row

    def _symbol(self, pid: int, address: int) -> str:
        return self._setup.session.symbol(pid, address).label


def _values(spec: nodes.TraceSpec, format: Format | None, hook: SpecHook) -> list[tuple[str, Expression]] | None:
    """The values of a spec, with names; None if it names nothing, so that everything known is shown."""
    lowering = hook.lowering
    if format is not None:
        pairs = zip(spec.values, format.conversions, strict=True)
        return [(printer.expression(node), conversion.lower(lowering, node)) for node, conversion in pairs]
    names = [parameter.name for parameter in spec.parameters if parameter.name]
    if hook.entry is None and names:
        return [(name, lowering.shown(nodes.Name(name))) for name in names]
    return None


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
        condition = None if spec.predicate is None else hook.lowering.condition(spec.predicate)
        source = hook.source()
        source = source if condition is None else source.where(condition)
        if histogram:
            distributed.tables.append(source.hist(keys[0], linear=linear))
        else:
            distributed.tables.append(source.count(**{f"key_{number}": key for number, key in enumerate(keys)}))
    return distributed
