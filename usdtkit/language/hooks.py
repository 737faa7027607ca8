"""Specs in a session: finds their targets, lowers their expressions and conditions, and sets up what `trace` shows.

Input: text from a user, and a session. Output: `SpecHook`s, from which tools and `distributions` make sources, and
`Messages`, which describe events. It uses all other modules of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from usdtkit.bpf.expressions import Name, lift
from usdtkit.errors import SpecError
from usdtkit.language import nodes, printer, select
from usdtkit.language.formats import Format
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_pattern, parse_trace
from usdtkit.output.text import printable, show, show_argument
from usdtkit.records import dataclass, field, replace
from usdtkit.trace import Expression, Pair, Resolved, Session, Source, comm

HEADER = ("time_ns", "pid", "tid", "comm", "probe")


@dataclass
class SpecHook:
    """One probe of a spec, or all its functions, with the spec's condition.

    `lowering` lowers the expressions of the spec here. Only when it has lowered all of them can `source` be made,
    because they decide what a return needs from its entry.
    """

    session: Session
    lowering: Lowering
    resolved: Resolved
    entry: Resolved | None = None
    condition: Expression | None = None

    def source(self) -> Source:
        """The hits that meet the condition; at a return, with what the lowered expressions keep from the entry."""
        if self.lowering.is_pair and self.entry is not None:
            source: Source = self.session.pair(self.entry, keep=self.lowering.kept)
        else:
            source = self.session.source(self.resolved)
        return source if self.condition is None else source.where(self.condition)


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
        if spec.target.kind == "return":
            yield self._returns(spec)
        else:
            yield from self._hooks(spec, select.resolve(self.session, spec.text, spec.target))

    def counting(self, text: str, *, regexp: bool = False, valued: bool = False) -> list[SpecHook]:
        """The hooks of a pattern whose hits are counted or, with `valued`, have values. NotFoundError, SpecError.

        They are one, unless several probes differ in their arguments and these are needed.
        """
        spec = parse_pattern(text, regexp=regexp)
        if spec.target.kind == "return":
            return [self._returns(spec, regexp=regexp)]
        apart = valued or spec.predicate is not None
        found = select.matching(self.session, text, spec.target, regexp=regexp, apart=apart)
        return list(self._hooks(spec, found))

    def calls(self, text: str, keep: Mapping[str, Expression] | None = None, *, regexp: bool = False) -> Pair:
        """The calls of the functions of a pattern, with what to keep of their entries. NotFoundError, SpecError.

        A condition is about the entry, or if the pattern begins with r:, about the return.
        """
        spec, kept = parse_pattern(text, regexp=regexp), dict(keep or {})
        if spec.target.kind == "usdt" or spec.target.offset:
            hint = "LIBRARY:FUNCTION; usdtkit probelatency measures between probes"
            raise SpecError("this is not a function", text, 0, hint=hint)
        if spec.target.kind == "return":
            hook = self._returns(spec, regexp=regexp)
            assert hook.entry is not None
            pair = self.session.pair(hook.entry, keep=kept | hook.lowering.kept)
            return pair if hook.condition is None else pair.where(hook.condition)
        entry = select.resolve_functions(self.session, spec.target, regexp=regexp)
        if spec.predicate is None:
            return self.session.pair(entry, keep=kept)
        wanted = self._lowering(spec, entry).condition(spec.predicate)
        return self.session.pair(entry, keep={**kept, "is_wanted": wanted}).where(Name("is_wanted"))

    def _hooks(self, spec: nodes.TraceSpec | nodes.DistributionSpec, found: Iterable[Resolved]) -> Iterator[SpecHook]:
        for resolved in found:
            if resolved.kind == "usdt" and spec.parameters:
                hint = "its arguments are arg1, arg2 and so on"
                raise SpecError("a USDT probe has no signature", spec.text, spec.target.at, hint=hint)
            lowering = self._lowering(spec, resolved)
            yield SpecHook(self.session, lowering, resolved, condition=_condition(spec, lowering))

    def _returns(self, spec: nodes.TraceSpec | nodes.DistributionSpec, *, regexp: bool = False) -> SpecHook:
        entry = select.resolve_functions(self.session, replace(spec.target, kind="entry"), regexp=regexp)
        at_entry = self._lowering(spec, entry)
        at_return = Lowering(spec.text, "return", entry=at_entry, string_size=self.string_size, binary=self.binary)
        return SpecHook(self.session, at_return, entry.returning(), entry, _condition(spec, at_return))

    def _lowering(self, spec: nodes.TraceSpec | nodes.DistributionSpec, resolved: Resolved) -> Lowering:
        return Lowering(
            spec.text, resolved.kind, resolved.arguments, spec.parameters, self.string_size, binary=self.binary
        )


def _condition(spec: nodes.TraceSpec | nodes.DistributionSpec, lowering: Lowering) -> Expression | None:
    return None if spec.predicate is None else lowering.condition(spec.predicate)


@dataclass
class Message:
    """How the values of one spec are shown: by their names, and in a format if the spec has one. `fields` are those of
    its events."""

    format: Format | None
    names: tuple[str, ...]
    fields: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]] = field(default=tuple)

    def __post_init__(self) -> None:
        get = attrgetter(*self.fields)
        # attrgetter makes no tuple of one value.
        self.values = get if len(self.fields) > 1 else lambda event: (get(event),)


class _ByType(dict[type, Message]):
    """The message that the events of a type belong to, by that type; filled as events of the types come."""

    def __init__(self, messages: Sequence[Message]) -> None:
        super().__init__()
        self._messages = messages

    def __missing__(self, type: Any) -> Message:
        own = next(name for name in type._fields if name.startswith("of_"))
        self[type] = message = self._messages[int(own.split("_")[1])]
        return message


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Values by name as text, such as `order_id=42 customer="ada"`."""
    return " ".join(
        f'{printable(name)}="{show(value)}"' if isinstance(value, str) else f"{printable(name)}={show_argument(value)}"
        for name, value in arguments.items()
    )


class Messages:
    """The events of `trace` specs. Each of them also has the fields `extra`."""

    def __init__(self, setup: Setup, extra: Mapping[str, Expression]) -> None:
        self._setup = setup
        self._extra = {"comm": comm, **extra}
        self._messages: list[Message] = []
        self._by_type = _ByType(self._messages)

    def add(self, text: str) -> None:
        """Set up the events of a spec. SpecError, NotFoundError."""
        spec = parse_trace(text)
        format = None if spec.format is None else Format(spec)
        for hook in self._setup.hooks(spec):
            values = _values(spec, format, hook)
            source = hook.source()
            self._emit(source, [*source.everything().items()] if values is None else values, format)

    def _emit(self, source: Source, values: Sequence[tuple[str, Expression]], format: Format | None) -> None:
        # The names of an event's fields say which spec it belongs to.
        prefix = f"of_{len(self._messages)}_"
        fields = {f"{prefix}{number}": value for number, (_, value) in enumerate(values)}
        own = fields or {prefix: lift(0)}
        self._messages.append(Message(format, tuple(name for name, _ in values), tuple(own)))
        source.emit(**self._extra, **own)

    def carry(self, names: Sequence[str]) -> bool:
        """Whether a spec has values by all these names."""
        return any(set(names) <= {*message.names} for message in self._messages)

    def stop(self) -> None:
        """Stop the session."""
        self._setup.session.stop()

    @property
    def have_formats(self) -> bool | None:
        """Whether all specs have a format (True) or none has one (False); None where some do."""
        have = {message.format is not None for message in self._messages}
        return have.pop() if len(have) == 1 else None

    def row(self, event: Any) -> dict[str, Any]:
        """An event as a row: its header, the fields `extra`, `arguments`, and `message` if its spec has a format."""
        row = {name: getattr(event, name) for name in (*HEADER[:3], "comm", "probe", *self._extra)}
        row["arguments"] = self.arguments(event)
        if self._by_type[type(event)].format is not None:
            row["message"] = self.message(event)
        return row

    def arguments(self, event: Any) -> dict[str, Any]:
        """The values of an event by the names that they have in its spec."""
        message = self._by_type[type(event)]
        return dict(zip(message.names, message.values(event), strict=False))

    def message(self, event: Any) -> str:
        """An event in the format of its spec, which has one."""
        message = self._by_type[type(event)]
        assert message.format is not None
        return message.format.fill(message.values(event), event.pid, self._symbol)

    def text(self, event: Any) -> str:
        """An event as a table shows it: in its format, or else its values by their names."""
        message = self._by_type[type(event)]
        return arguments_text(self.arguments(event)) if message.format is None else self.message(event)

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
