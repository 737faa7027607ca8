"""Show the flow of a program through its methods and functions: Java, Python, Ruby, PHP, Perl, Tcl.

Each entry (->) and return (<-) is a line, indented by the depth of the call in its thread. A call that is left without
a return, such as by an exception, ends with the call around it. Use -M and -C to narrow the trace: the kernel applies
them, but every line still costs the program a few microseconds, and a busy program makes millions of calls.

examples:
  usdtkit uflow 1234
  usdtkit phpflow 1234 -C Order -M charge
  usdtkit uflow 1234 -d 5 --chrome flow.json    for speedscope, Perfetto or chrome://tracing
  usdtkit pythonflow 1234 -d 5 -f > stacks      microseconds by stack, for flame graphs
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from usdtkit.cli import runtimeoptions
from usdtkit.cli.arguments import Spelling, process_argument
from usdtkit.cli.options import option
from usdtkit.providers import runtimes
from usdtkit.records import replace
from usdtkit.results import PID, TID, TIME, Calls, Column, Results, Row, Rows, StackSum, Summaries
from usdtkit.trace import Session

TOPIC = "languages"
SCHEMA_VERSION = 2
LANGUAGES = ("java", "perl", "php", "python", "ruby", "tcl")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
SPELLING = Spelling(shows_program=True)
STACKS = (
    Column("stack", type="stack", meaning="with -f: the open calls, innermost first", optional=True),
    Column("own_ns", type="duration", meaning="with -f: the time within the innermost call itself", optional=True),
)
STEPS = (
    *(replace(TIME, heading=""), Column("cpu", "CPU", "count", 3, "the processor", nullable=True), PID, TID),
    Column("seconds", "TIME(s)", "number", 9, "the time since the first event", show="{:.6f}".format),
    Column("depth", type="count", meaning="the number of calls around this one, as far as the trace has seen them"),
    Column("method", meaning="the class, file or package, and the method", role="name"),
    Column("phase", meaning="-> at an entry, <- at a return", values=("->", "<-"), role="phase"),
    Column("reported", type="boolean", meaning="false if the call ended without a return that the runtime reported"),
    Column("flow", "METHOD", meaning="the method as the table shows it"),
)
# With -f, only the columns of `STACKS` are written.
COLUMNS = (*(replace(column, optional=column.name != "time_ns") for column in STEPS), *STACKS)


class ToChromeTrace(argparse.Action):
    """Write a Chrome trace to a file."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.format, namespace.output = "chrome", values


class Options(runtimeoptions.MethodOptions):
    """Options of `usdtkit uflow`."""

    process: int | str | None = process_argument()
    language: str | None = runtimeoptions.language_option(*LANGUAGES)
    chrome: str | None = option(
        "--chrome",
        dest="output",
        action=ToChromeTrace,
        default=None,
        metavar="FILE",
        help="write a Chrome trace to FILE, and nothing else",
    )
    by_stack: bool = option(
        *("-f", "--folded"),
        dest="format",
        const="folded",
        default=None,
        help="write folded stacks with the microseconds spent in each, instead of lines",
    )


processes = runtimeoptions.processes


def trace(session: Session, options: Options) -> Results:
    """Trace calls; a row for each entry and return, or the time by stack."""
    runtime = runtimes.of(session, options.language, among=LANGUAGES)
    flow = runtime.flow(method=options.method, group=options.group)
    return Stacks(session, runtime.language.name, flow) if options.by_stack else Steps(session, flow)


class Steps(Rows):
    """A row for each step of a flow. One event may be several: it may end calls that have not returned."""

    def __init__(self, session: Session, flow: runtimes.CallFlow) -> None:
        super().__init__(session, STEPS, rest=self._rest)
        self._flow = flow

    def __iter__(self) -> Iterator[Row]:
        yield from super().__iter__()
        yield from self._rest()

    def taken(self, events: list[Any]) -> list[Any]:
        return [self._row(step) for event in events for step in self._flow.take(event)]

    def _rest(self) -> Iterator[Row]:
        return map(self._row, self._flow.finish())

    def _row(self, step: runtimes.Step) -> Row:
        phase = "->" if step.is_entry else "<-"
        return {
            **{name: getattr(step, name) for name in ("time_ns", "pid", "tid", "cpu")},
            "seconds": (step.time_ns - self._flow.first_ns) / 1e9,
            **{"depth": step.depth, "method": step.name, "phase": phase, "reported": step.reported},
            "flow": f"{'  ' * step.depth}{phase} {step.name}{'' if step.reported else ' (no return)'}",
        }


class Stacks(Summaries):
    """The time that each stack of open calls spent in its innermost call."""

    def __init__(self, session: Session, language: str, flow: runtimes.CallFlow) -> None:
        super().__init__(session, STACKS, self._by_stack, take=self._add)
        self._language = language
        self._flow = flow
        self._own_ns: Counter[tuple[str, ...]] = Counter()

    def _add(self, event: Any) -> None:
        self._count(self._flow.take(event))

    def _count(self, steps: Any) -> None:
        for step in steps:
            if step.stack is not None:
                self._own_ns[step.stack] += step.own_ns

    def _by_stack(self) -> Iterator[StackSum]:
        from usdtkit.trace import Frame  # lazy: only -f has stacks

        self._count(self._flow.finish())
        for stack, own_ns in sorted(self._own_ns.items()):
            calls = Calls(tuple(Frame(self._language, name) for name in reversed(stack)))
            yield StackSum(calls, own_ns // 1000, {"own_ns": own_ns}, after=[f"    {own_ns / 1000:.0f} us"])
