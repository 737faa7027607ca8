"""Spans: a stretch of work as two probes, NAME__start and NAME__done. Done fires even if an exception ends the work.

Input: declarations from `provider` and `traced`. Output: a `Span`, which makes a context manager for each stretch of
work; both are written in C (native/probe_span.c, native/probe_live.c). Each start says which span is around it, so that
a tracer can put the spans of a request into a tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from usdtkit.errors import UsageError
from usdtkit.probes.compiled import Probe, Span, native
from usdtkit.probes.declaration import MAX_DOC, argument, check_arguments, check_name, check_text
from usdtkit.probes.drops import ask

_ID = argument("u64", doc="the number of the span, the same at its start and its end")
# The first arguments of every start probe, as native/probe_live.c fires them.
_START = {
    "span": _ID,
    "parent_span": argument("u64", doc="the number of the span around it, or 0"),
    "trace_id": argument("str", doc="32 hexadecimal digits, the same for all spans of one trace"),
}
_DONE = {
    "span": _ID,
    "latency_ns": argument("u64", unit="ns"),
    "error": argument("str", doc="name of the exception that left the span, or empty"),
}
# Exact types only. A value of a subclass, such as an IntEnum, is json unless the span is declared.
_TYPES: dict[type, str] = {bool: "bool", int: "i64", float: "f64", str: "str", bytes: "bytes"}


def declare_span(
    declare: Callable[..., Probe[...]], provider: str, name: str, arguments: Mapping[str, object], doc: str
) -> Span[...]:
    """Declare the two probes of a span by `declare`, a method of this provider. Raises UsageError."""
    what = f"span {provider}:{name}"
    check_name("a span", name)
    check_text(f"the doc of {what}", doc, MAX_DOC)
    for taken in _START.keys() & arguments.keys():
        raise UsageError(f"an argument of {what} cannot be called {taken!r}", hint="each span has it already")
    declared = {**_START, **arguments}
    # Arguments and names are checked before the first probe is declared, so that a mistake leaves no half of a span.
    check_arguments(what, declared)
    check_name("the end of a span", f"{name}__done")
    check_name("the start of a span", f"{name}__start")
    begins = f"{doc} Begins." if doc.endswith(".") else f"{doc or name} begins."
    options = {"stability": "", "on_error": None}
    start = declare(f"{name}__start", declared, doc=begins[:MAX_DOC], **options)
    done = declare(f"{name}__done", {**_DONE}, doc=f"{name} ends, or an exception leaves it.", **options)
    return Span(name, start, done)


def types_of(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the types of a span's arguments by the first values that it gets."""
    return {name: _TYPES.get(type(value), "json") for name, value in values.items()}


def _foreign() -> tuple[str, int] | None:
    """Return trace id and span id of the span of OpenTelemetry that is current, or None.

    It is called only if the application has imported opentelemetry. What that raises must not reach the caller.
    """

    def context() -> tuple[str, int] | None:
        found = sys.modules["opentelemetry.trace"].get_current_span().get_span_context()
        return (f"{found.trace_id:032x}", int(found.span_id)) if found.is_valid else None

    return ask(context, None)


native.on_span(_foreign)
