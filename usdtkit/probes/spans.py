"""Spans: a stretch of work as two probes, NAME__start and NAME__done. Done fires even if an exception ends the work.

Input: declarations and values from `provider` and `traced`. Output: context managers, sync and async, that fire. While
neither probe is traced, all spans are one shared object that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter_ns
from types import TracebackType

from usdtkit.errors import UsageError
from usdtkit.probes.compiled import Probe, span_number
from usdtkit.probes.declaration import MAX_DOC, argument, check_arguments, check_name, check_text

_ID = argument("u64", doc="the number of the span, the same at its start and its end")
_DONE = {
    "span": _ID,
    "latency_ns": argument("u64", unit="ns"),
    "error": argument("str", doc="name of the exception that left the span, or empty"),
}
# Exact types only. A value of a subclass, such as an IntEnum, is json unless the span is declared.
_TYPES: dict[type, str] = {bool: "bool", int: "i64", float: "f64", str: "str", bytes: "bytes"}


class LiveSpan:
    """One stretch of work, for one `with` or `async with`. This class is for an untraced one and does nothing."""

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
            return  # it was never entered, which an ExitStack allows: then neither end fires
        latency = perf_counter_ns() - started_at
        # A metaclass of the program's may compute the name. `lazy` drops and counts what that raises.
        self._done.lazy(lambda: (self._id, latency, kind.__name__ if kind else ""))


UNTRACED = LiveSpan()


class Span:
    """A declared span. Called with its values it returns a `LiveSpan`. Made by `Provider.define_span`."""

    def __init__(self, name: str, start: Probe[...], done: Probe[...]) -> None:
        self.name, self.start, self.done = name, start, done

    def __repr__(self) -> str:
        return f"<Span {self.start.provider}:{self.name}>"

    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to its start or its end."""
        return self.start.enabled or self.done.enabled

    def __call__(self, /, *values: object, **named: object) -> LiveSpan:
        """Return a stretch of work with these values of the declared arguments."""
        if self.start.enabled or self.done.enabled:
            try:
                return _TracedSpan(self.start, self.done, values, named)
            except RecursionError:
                return UNTRACED  # the caller has used up the stack, and must go on as if nobody traced
        return UNTRACED


def declare_span(
    declare: Callable[..., Probe[...]], provider: str, name: str, arguments: Mapping[str, object], doc: str
) -> Span:
    """Declare the two probes of a span by `declare`, which is `Provider.probe` of this provider. Raises UsageError."""
    what = f"span {provider}:{name}"
    check_name("a span", name)
    check_text(f"the doc of {what}", doc, MAX_DOC)
    if "span" in arguments:
        raise UsageError(
            f"an argument of {what} cannot be called 'span'",
            hint="each span has it already, as its number",
        )
    declared = {"span": _ID, **arguments}
    # Arguments and names are checked before the first probe is declared, so that a mistake leaves no half of a span.
    check_arguments(what, declared)
    check_name("the end of a span", f"{name}__done")
    check_name("the start of a span", f"{name}__start")
    begins = f"{doc} Begins." if doc.endswith(".") else f"{doc or name} begins."
    start = declare(f"{name}__start", declared, doc=begins[:MAX_DOC])
    done = declare(f"{name}__done", _DONE, doc=f"{name} ends, or an exception leaves it.")
    return Span(name, start, done)


def types_of(values: Mapping[str, object]) -> dict[str, object]:
    """Return the types of a span's arguments by the first values that it gets."""
    return {name: _TYPES.get(type(value), "json") for name, value in values.items()}
