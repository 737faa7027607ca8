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
from collections import Counter
from contextlib import ExitStack
from typing import Any

from usdtkit.cli.languages import add_language_options, add_name_options, tracing
from usdtkit.cli.run import follow
from usdtkit.output import folded
from usdtkit.output.chrome import ChromeTrace
from usdtkit.output.report import PID, Column, Report
from usdtkit.providers.runtimes import Step

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
        flow = runtime.flow(method=options.method or "", group=options.group or "")
        own_time: Counter[tuple[str, ...]] = Counter()

        def take(step: Step) -> None:
            if step.stack is not None and step.own_ns is not None:
                own_time[step.stack] += step.own_ns
            if chrome is not None and (step.is_entry or step.stack is not None):
                chrome.event(step.is_entry, step.name, step.time_ns, step.pid, step.tid)

        def describe(event: Any) -> dict[str, Any] | None:
            steps = flow.take(event)
            for step in steps:
                take(step)
            if chrome is not None or options.folded:
                return None
            step = steps[-1]
            row = {key: getattr(step, key) for key in ("time_ns", "pid", "tid", "cpu")}
            text = f"{'  ' * step.depth}{'->' if step.is_entry else '<-'} {step.name}"
            seconds = (step.time_ns - flow.first_ns) / 1e9
            return {**row, "seconds": seconds, "depth": step.depth, "method": step.name, "flow": text}

        def finish(report: Report) -> None:
            for step in flow.finish():
                take(step)
            if options.folded:
                for path, time in sorted(own_time.items()):
                    print(folded.line(path, time // 1000))

        columns = [] if options.folded or chrome else COLUMNS
        return follow(runtime.session, options, "uflow", columns, describe=describe, finish=finish)
