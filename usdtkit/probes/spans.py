"""Spans: a stretch of work as two probes, NAME__start and NAME__done, that an exception cannot keep apart.

Input: declarations and values from `provider`. Output: context managers, sync and async, that fire. While neither probe
is traced, a span is one shared object that does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

from usdtkit.errors import UsageError
from usdtkit.probes.declaration import MAX_DOC, argument, check_arguments, check_name, check_text
from usdtkit.probes.provider import span_number

if TYPE_CHECKING:
    from usdtkit.probes.provider import Probe, Provider

_ID = argument("u64", doc="the span: the same at its start and its end")
_DONE = {
    "span": _ID,
    "latency_ns": argument("u64", unit="ns"),
    "error": argument("str", doc="name of the exception that left it, or empty"),
}
# Exact types: a subclass (an IntEnum) goes as json unless it is declared.
_BY_VALUE: dict[type, str] = {bool: "bool", int: "i64", float: "f64", str: "str", bytes: "bytes"}


class LiveSpan:
    """One stretch of work; `with` or `async with` it, once. This one is not traced and does nothing."""

    __slots__ = ()

    def __enter__(self) -> LiveSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    async def __aenter__(self) -> LiveSpan:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class _TracedSpan(LiveSpan):
    __slots__ = ("_done", "_id", "_named", "_start", "_started_at", "_values")

    def __init__(
        self, start: Probe[...], done: Probe[...], values: tuple[object, ...], named: Mapping[str, object]
    ) -> None:
        self._start, self._done, self._values, self._named = start, done, values, named
        self._started_at: int | None = None

    def __enter__(self) -> LiveSpan:
        self._id = span_number()
        self._start(self._id, *self._values, **self._named)
        self._started_at = perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        started_at = self._started_at
        if started_at is None:
            return  # it was never entered, as an ExitStack lets one do; an untraced span says nothing either
        latency = perf_counter_ns() - started_at
        # A metaclass of the program's may say what the name is: that is asked by the probe, which lets nothing out.
        self._done.lazy(lambda: (self._id, latency, kind.__name__ if kind else ""))


UNTRACED = LiveSpan()


class Span:
    """A declared span; called with its values it gives what `with` takes. Made by `Provider.define_span`."""

    def __init__(self, name: str, start: Probe[...], done: Probe[...]) -> None:
        self.name, self.start, self.done = name, start, done

    def __repr__(self) -> str:
        return f"<Span {self.start.provider}:{self.name}>"

    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to its start or its end."""
        return self.start.enabled or self.done.enabled

    def __call__(self, /, *values: object, **named: object) -> LiveSpan:
        """A stretch of work with these values of the declared arguments."""
        if self.start.enabled or self.done.enabled:
            try:
                return _TracedSpan(self.start, self.done, values, named)
            except RecursionError:
                return UNTRACED  # the caller is as deep as it may be, and untraced it would go on
        return UNTRACED


def define(provider: Provider, name: str, arguments: Mapping[str, object], doc: str = "") -> Span:
    """Declare the two probes of a span, or find those that were declared so before. Raises UsageError."""
    what = f"span {provider.name}:{name}"
    check_name("a span", name)
    check_text(f"the doc of {what}", doc, MAX_DOC)
    if "span" in arguments:
        raise UsageError(f"an argument of {what} cannot be called 'span'", hint="that is its own number")
    wanted = {"span": _ID, **arguments}
    # Both or none: what is wrong with the arguments or the names is said before the first is declared.
    check_arguments(what, wanted)
    check_name("the end of a span", f"{name}__done")
    check_name("the start of a span", f"{name}__start")
    begins = f"{doc} Begins." if doc.endswith(".") else f"{doc or name} begins."
    start = provider.probe(f"{name}__start", wanted, doc=begins[:MAX_DOC])
    done = provider.probe(f"{name}__done", _DONE, doc=f"{name} ends, or an exception leaves it.")
    return provider.keep_span(Span(name, start, done))


def define_by_values(provider: Provider, name: str, values: Mapping[str, object]) -> Span:
    """Declare a span by the types of the first values that it gets."""
    return define(provider, name, {key: _BY_VALUE.get(type(value), "json") for key, value in values.items()})
