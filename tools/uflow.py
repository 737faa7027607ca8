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

from usdtkit.cli.languages import add_language_options, add_name_options, chosen, full_name, names_of, tracing
from usdtkit.cli.run import follow
from usdtkit.output import folded
from usdtkit.output.chrome import ChromeTrace
from usdtkit.output.report import PID, Column, Report
from usdtkit.trace import cpu

TOPIC = "languages"

LANGUAGES = ("java", "perl", "php", "python", "ruby", "tcl")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
COLUMNS = [
    *(Column("CPU", "cpu", 3, right=True), PID, Column("TID", "tid", 7, right=True)),
    *(Column("TIME(s)", "seconds", 9, lambda value: f"{value:.6f}", right=True), Column("METHOD", "flow", 0)),
]


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
                    chosen(source, calls, options).emit(cpu=cpu, **names_of(calls))
        # Of each thread: the open calls (name, since when, time of those within them).
        threads: dict[tuple[int, int], list[tuple[str, int, int]]] = defaultdict(list)
        own_time: Counter[tuple[str, ...]] = Counter()
        first = 0

        def describe(event: Any) -> dict[str, Any] | None:
            nonlocal first
            first = first or event.time_ns
            name = full_name([getattr(event, part) for part in ("group", "name") if part in event._fields])
            begins, calls = event.probe in entries, threads[event.pid, event.tid]
            depth = len(calls) - (not begins)
            if begins:
                calls.append((name, event.time_ns, 0))
            elif calls:  # else it began before the trace
                path = tuple(call[0] for call in calls)
                _, since, within = calls.pop()
                own_time[path] += event.time_ns - since - within
                if calls:
                    calls[-1] = (*calls[-1][:2], calls[-1][2] + event.time_ns - since)
            if chrome is not None:
                chrome.event(begins, name, event.time_ns, event.pid, event.tid)
            if chrome is not None or options.folded:
                return None
            row = {key: getattr(event, key) for key in ("time_ns", "pid", "tid", "cpu")}
            flow = f"{'  ' * max(depth, 0)}{'->' if begins else '<-'} {name}"
            return {**row, "seconds": (event.time_ns - first) / 1e9, "depth": depth, "method": name, "flow": flow}

        def finish(report: Report) -> None:
            if options.folded:
                for path, time in sorted(own_time.items()):
                    print(folded.line(path, time // 1000))

        columns = [] if options.folded or chrome else COLUMNS
        return follow(runtime.session, options, "uflow", columns, describe=describe, finish=finish)
