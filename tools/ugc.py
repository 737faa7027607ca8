"""Show garbage collections: when each began, how long it took, and what it did. Java, Python, Ruby, Node.

Of Java each pool's share is a line of its own, with what was used before and after. Of Node its own tool nodegc shows
more; ugc -l node is that one.

examples:
  usdtkit ugc 1234
  usdtkit ugc -M 10 1234              those that took 10 ms or longer
  usdtkit javagc -F Eden 1234         of the pool Eden
  usdtkit ugc -c 'python3 app.py'
"""

import argparse
from collections import defaultdict
from typing import Any

from usdtkit.cli.languages import Runtime, add_language_options, tracing
from usdtkit.cli.run import follow, milliseconds
from usdtkit.output.report import TIME, Column
from usdtkit.output.text import show
from usdtkit.providers.languages import Span

TOPIC = "languages"

LANGUAGES = ("java", "python", "ruby")
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
    with tracing(options) as runtime:
        starts, ends = spans(runtime)
        open_: dict[tuple[Any, ...], list[Any]] = defaultdict(list)

        def describe(event: Any) -> dict[str, Any] | None:
            span = starts.get(event.probe) or ends[event.probe]
            key = (event.tid, span.start, *(getattr(event, name) for name in span.key))
            if event.probe in starts:
                open_[key].append(event)
                return None
            if not open_[key]:  # it began before the trace
                return None
            start = open_[key].pop()
            took, text = event.time_ns - start.time_ns, description(span, start, event)
            if took < options.minimum * 1e6 or (options.filter or "") not in text:
                return None
            row = {"time_ns": start.time_ns, "pid": event.pid, "tid": event.tid, "latency_ns": took}
            return {**row, "kind": span.what, "description": text}

        columns = [TIME, latency, Column("DESCRIPTION", "description", 0)]
        return follow(runtime.session, options, "ugc", columns, describe=describe)


def spans(runtime: Runtime) -> tuple[dict[str, Span], dict[str, Span]]:
    """What the language has, by the names of the probes that start and that end it; all of it sends events."""
    collections = runtime.language.collections
    for span in collections:
        for probe in (span.start, span.done):
            for source in runtime.sources(probe):
                source.emit()
    return {span.start: span for span in collections}, {span.done: span for span in collections}


def description(span: Span, start: Any, end: Any) -> str:
    """`pool G1 Eden Space used=4194304->0`: whose it is, what one of the two says, and what changed between them."""
    before, after = ({k: v for k, v in event._asdict().items() if k not in HEADER} for event in (start, end))
    words = [show(before[name]) for name in span.key]
    for name in [*before, *(name for name in after if name not in before)]:
        if name in span.key or (name in before and before[name] == after.get(name) and name != "used"):
            continue
        both = name in before and name in after
        words.append(f"{name}={show(before.get(name, after.get(name)))}" + (f"->{show(after[name])}" if both else ""))
    return " ".join([span.what, *words])
