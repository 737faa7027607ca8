"""Show the calls of functions that take longer than a threshold.

A FUNCTION is LIBRARY:FUNCTION: functions of a library ("c"), a command or a file; globs allowed. A line appears when
the function returns, with what it returned and, with -a, its first arguments as they were at its entry, in hexadecimal.

examples:
  usdtkit funcslower c:open -u 10              10 microseconds or longer
  usdtkit funcslower c:getaddrinfo c:connect -m 100 -T
  usdtkit funcslower -a 2 -U 'c:fsync' -p 1234  with two arguments and the calls that led there
"""

import argparse
from typing import Any

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_ignored_options, add_session_options
from usdtkit.cli.values import milliseconds
from usdtkit.language.rows import seconds_column
from usdtkit.language.select import calls
from usdtkit.output import folded
from usdtkit.output.report import COMM, LATENCY_MS, LATENCY_US, PID, TIME, Column
from usdtkit.output.text import show
from usdtkit.trace import Expression, arg, comm, ms, retval, us, ustack

TOPIC = "any function or probe"
VARIANTS = ("c:malloc", "c:malloc -U", "c:malloc -a 3")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit funcslower`."""
    parser.add_argument("function", nargs="+", metavar="FUNCTION", help="functions")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-m", "--min-ms", type=milliseconds, default=1.0, metavar="MS", help="milliseconds (1)")
    group.add_argument("-u", "--min-us", type=milliseconds, metavar="US", help="microseconds")
    parser.add_argument("-a", "--arguments", type=int, choices=range(7), default=0, metavar="N", help="N arguments")
    parser.add_argument("-T", "--time", action="store_true", help="the time of day")
    parser.add_argument("-t", "--timestamp", action="store_true", help="seconds since the start")
    parser.add_argument("-U", "--user-stack", action="store_true", help="the calls that led there")
    parser.add_argument("-f", "--folded", action="store_true", help="with -U, as folded lines with the microseconds")
    add_ignored_options(parser, {"-K --kernel-stack": "kernel functions are not traced here"})
    add_filter_options(parser)
    add_session_options(parser, chosen=True, shows_program=True)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    least = us(options.min_us) if options.min_us is not None else ms(options.min_ms)
    names = [f"arg{number}" for number in range(1, options.arguments + 1)]
    with shared.new_session(options) as session:
        extra: dict[str, Expression] = {"stack": ustack} if options.user_stack else {}
        for function in options.function:
            keep = {name: arg(number).cast("u64") for number, name in enumerate(names, 1)}
            slow = shared.filtered(session.pair(calls(session, function), keep=keep), options)
            slow.where(slow.latency >= least).emit("latency", *names, comm=comm, retval=retval.cast("u64"), **extra)

        def describe(event: Any) -> dict[str, Any] | None:
            row: dict[str, Any] = event._asdict()
            row["function"] = row.pop("probe")
            row["arguments"] = [row.pop(name) for name in names]
            text, stack = " ".join(map(hex, row["arguments"])), row.pop("stack", None)
            if options.folded and options.format == "table":
                labels = (row["comm"] or "?", *reversed(folded.labels(stack)))
                print(folded.line(labels, row["latency_ns"] // 1000), flush=True)
                return None
            if options.format == "table":
                return {**row, "text": folded.below(text, stack) if options.user_stack else text}
            return {**row, "stack": folded.shown(stack)} if options.user_stack else row

        time = [TIME] if options.time else [seconds_column()] if options.timestamp else []
        latency = LATENCY_MS if options.min_us is None else LATENCY_US
        values = (Column("RVAL", "retval", 12, hex, right=True), Column("FUNC", "function", 20, show))
        columns = [] if options.folded else [*time, COMM, PID, latency, *values, Column("ARGS", "text", 0, str)]
        return shared.follow(session, options, "funcslower", columns, describe=describe)
