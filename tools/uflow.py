"""Show the flow of a program through its methods and functions: Java, Python, Ruby, PHP, Perl, Tcl.

A line for each entry (->) and return (<-), indented by the depth in its thread. Narrow it by -M and -C, which the
kernel decides: every line costs the program a few microseconds, and a busy one makes millions.

examples:
  usdtkit uflow 1234
  usdtkit phpflow 1234 -C Order -M charge
  usdtkit uflow 1234 -d 5 --chrome flow.json    for speedscope, Perfetto or chrome://tracing
  usdtkit pythonflow 1234 -d 5 -f > stacks      microseconds by stack, for flame graphs
"""

import argparse
from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import Any

from usdtkit.cli.languages import (
    NAME_SIZE,
    add_language_options,
    add_name_options,
    chosen,
    full_name,
    names_of,
    tracing,
)
from usdtkit.cli.run import follow
from usdtkit.output import folded
from usdtkit.output.chrome import ChromeTrace
from usdtkit.output.report import PID, Column, Report
from usdtkit.records import dataclass
from usdtkit.trace import cpu

TOPIC = "languages"

LANGUAGES = ("java", "perl", "php", "python", "ruby", "tcl")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
COLUMNS = [
    *(Column("CPU", "cpu", 3, right=True), PID, Column("TID", "tid", 7, right=True)),
    *(Column("TIME(s)", "seconds", 9, lambda value: f"{value:.6f}", right=True), Column("METHOD", "flow", 0)),
]


@dataclass
class Call:
    """A call that is open: since when, and how long of it was spent in calls within it, in nanoseconds."""

    name: str
    since: int
    within: int = 0


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit uflow`."""
    parser.add_argument("--chrome", metavar="FILE", help="write a Chrome trace there, and no lines")
    parser.add_argument("-f", "--folded", action="store_true", help="no lines, but folded stacks with their own time")
    add_name_options(parser)
    add_language_options(parser, *LANGUAGES)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with ExitStack() as stack:
        runtime = stack.enter_context(tracing(options))
        chrome = stack.enter_context(ChromeTrace(options.chrome)) if options.chrome else None
        entries = set()
        for calls in runtime.calls():
            entries.add(calls.entry)
            for probe in (calls.entry, calls.done):
                for source in runtime.sources(probe):
                    chosen(source, calls, options).emit(cpu=cpu, **names_of(calls, NAME_SIZE, NAME_SIZE))
        threads: dict[tuple[int, int], list[Call]] = defaultdict(list)
        own_time: Counter[tuple[str, ...]] = Counter()
        first = last = 0

        def leave(thread: tuple[int, int], time_ns: int) -> None:
            """End the innermost call of a thread."""
            calls = threads[thread]
            path = tuple(call.name for call in calls)
            call = calls.pop()
            took = time_ns - call.since
            own_time[path] += took - call.within
            if calls:
                calls[-1].within += took
            if chrome is not None:
                chrome.event(False, call.name, time_ns, *thread)

        def describe(event: Any) -> dict[str, Any] | None:
            nonlocal first, last
            first, last = first or event.time_ns, event.time_ns
            name = full_name([getattr(event, part) for part in ("group", "name") if part in event._fields])
            thread, begins = (event.pid, event.tid), event.probe in entries
            calls = threads[thread]
            if begins:
                depth = len(calls)
                calls.append(Call(name, event.time_ns))
                if chrome is not None:
                    chrome.event(True, name, event.time_ns, *thread)
            else:  # those within it were left without a return; of what began before the trace nothing is open
                if any(call.name == name for call in calls):
                    while calls[-1].name != name:
                        leave(thread, event.time_ns)
                    leave(thread, event.time_ns)
                depth = len(calls)
            if chrome is not None or options.folded:
                return None
            row = {key: getattr(event, key) for key in ("time_ns", "pid", "tid", "cpu")}
            flow = f"{'  ' * depth}{'->' if begins else '<-'} {name}"
            return {**row, "seconds": (event.time_ns - first) / 1e9, "depth": depth, "method": name, "flow": flow}

        def finish(report: Report) -> None:
            for thread, calls in threads.items():
                while calls:  # as far as they were seen
                    leave(thread, last)
            if options.folded:
                for path, time in sorted(own_time.items()):
                    print(folded.line(path, time // 1000))

        columns = [] if options.folded or chrome else COLUMNS
        return follow(runtime.session, options, "uflow", columns, describe=describe, finish=finish)
