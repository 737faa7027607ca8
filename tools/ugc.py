"""Show garbage collections: when each began, how long it took, and what it did. Java, Python, Ruby, Node.

Of Java each pool's share is a line of its own, with what was used before and after. Node carries no probes since
version 19: there V8's Heap::PerformGarbageCollection is traced, during which the thread's JavaScript stands still. With
a language, but neither PID nor command, every process that runs it now is traced.

examples:
  usdtkit ugc 1234
  usdtkit ugc -M 10 1234              those that took 10 ms or longer
  usdtkit javagc -F Eden 1234         of the pool Eden
  usdtkit nodegc                      of every node that runs here
  usdtkit ugc -c 'python3 app.py'
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from usdtkit.cli.languages import Runtime, add_language_options, tracing
from usdtkit.cli.run import first_found, follow
from usdtkit.cli.values import milliseconds
from usdtkit.output.report import PID, TIME, Column
from usdtkit.output.text import show
from usdtkit.signatures.languages import Span
from usdtkit.trace import Pair, arg, ms, uprobe

TOPIC = "languages"

LANGUAGES = ("java", "node", "python", "ruby")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
HEADER = ("time_ns", "pid", "tid", "probe")
MICROSECONDS = ("TIME(us)", 1e3)
MILLISECONDS = ("TIME(ms)", 1e6)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ugc`."""
    parser.add_argument("-M", "--minimum", type=milliseconds, default=0.0, metavar="MS", help="only those this long")
    parser.add_argument("-F", "--filter", metavar="TEXT", help="only where the description has this in it")
    parser.add_argument("-m", "--milliseconds", action="store_true", help="times in milliseconds")
    add_language_options(parser, *LANGUAGES)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    heading, unit = MILLISECONDS if options.milliseconds else MICROSECONDS
    latency = Column(heading, "latency_ns", 9, lambda ns: f"{ns / unit:.2f}", right=True)
    columns = [TIME, PID, Column("TID", "tid", 7, right=True), latency, Column("DESCRIPTION", "description", 0)]
    with tracing(options) as runtime:
        spans = runtime.language.collections
        calls = [span for span in spans if not span.done]
        for span in calls:
            trace_calls(runtime, span, options.minimum)
        between = Between(runtime, [span for span in spans if span.done])

        def describe(event: Any) -> dict[str, Any] | None:
            found = whole_call(calls[0], event) if "latency_ns" in event._fields else between.take(event)
            if found is None:
                return None
            span, took, start, end = found
            text = description(span, start, end)
            if took < options.minimum * 1e6 or (options.filter or "") not in text:
                return None
            row = {"time_ns": event.time_ns - took, "pid": event.pid, "tid": event.tid, "latency_ns": took}
            return {**row, "kind": span.what, "description": text, "start": start, "end": end}

        return follow(runtime.session, options, "ugc", columns, describe=describe)


Fields = Mapping[str, Any]
Found = tuple[Span, int, Fields, Fields]
"""A collection: how many nanoseconds it took, what was said at its start, and at its end."""


class Between:
    """Collections from a probe to another: the innermost that is open in a thread ends first, each pool by its name."""

    def __init__(self, runtime: Runtime, spans: Sequence[Span]) -> None:
        self._starts = {span.start: span for span in spans}
        self._ends = {span.done: span for span in spans}
        self._open: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for probe in (*self._starts, *self._ends):
            for source in runtime.sources(probe):
                source.emit()

    def take(self, event: Any) -> Found | None:
        """The collection that ends with this event; None of one that begins, or had begun before the trace."""
        span = self._starts.get(event.probe) or self._ends[event.probe]
        open_ = self._open[(event.pid, event.tid, span.start, *(getattr(event, name) for name in span.key))]
        if event.probe in self._starts:
            open_.append(event)
            return None
        if not open_:
            return None
        start = open_.pop()
        return span, event.time_ns - start.time_ns, own_fields(start), own_fields(event)


def trace_calls(runtime: Runtime, span: Span, minimum: float) -> None:
    """Collections that are calls of a function, of `minimum` milliseconds or longer."""
    keep = {name: arg(index).cast("u32") for name, index, _ in span.numbers}

    def pair_in(library: str) -> Pair:
        return runtime.session.pair(uprobe(library, span.start), keep=keep)

    pair = first_found(runtime.language.code, pair_in)
    pair.where(pair.latency >= ms(minimum)).emit("latency", *keep)


def whole_call(span: Span, event: Any) -> Found:
    """The collection that an event of `trace_calls` is, with words for numbers, but for those newer than we are."""
    said = {
        name: names[number] if (number := getattr(event, name)) < len(names) else str(number)
        for name, _, names in span.numbers
    }
    return span, event.latency_ns, said, {}


def own_fields(event: Any) -> Fields:
    """What a probe says, without what every event has."""
    return {name: value for name, value in event._asdict().items() if name not in HEADER}


def description(span: Span, before: Fields, after: Fields) -> str:
    """`pool G1 Eden Space used=4194304->0`: whose it is, what one of the two says, and what changed between them."""
    words = [show(before[name]) for name in span.key]
    for name in [*before, *(name for name in after if name not in before)]:
        if name in span.key or (name in before and before[name] == after.get(name) and name != "used"):
            continue
        both = name in before and name in after
        words.append(f"{name}={show(before.get(name, after.get(name)))}" + (f"->{show(after[name])}" if both else ""))
    return " ".join([span.what, *words])
