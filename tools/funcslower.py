"""Show the calls of functions that take longer than a threshold.

A FUNCTION is LIBRARY:FUNCTION: functions of a library ("c"), a command or a file; globs are allowed. A line appears
when the function returns. It shows the value that the function returned and, with -a, its first arguments as they were
at the entry, in hexadecimal. A condition in parentheses behind a FUNCTION chooses among the calls, as in trace: by what
they were given, or behind r:LIBRARY:FUNCTION by what they returned.

examples:
  usdtkit funcslower c:open -u 10              10 microseconds or longer
  usdtkit funcslower c:getaddrinfo c:connect -m 100 -T
  usdtkit funcslower -a 2 -U 'c:fsync' -p 1234  with two arguments and the calls that led there
  usdtkit funcslower 'c:write(int fd) (fd > 2)' 'r:c:read ((int)retval < 0)'
"""

from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import CallerOptions, Spelling, StackOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.cli.values import milliseconds
from usdtkit.language.hooks import Setup
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, LATENCY_US, PID, PYCALLER, TID, TIME, Column, Rows
from usdtkit.results.columns import seconds_column
from usdtkit.trace import Expression, Session, arg, comm, ms, pycaller, retval, us, ustack

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
VARIANTS = ("c:malloc", "c:malloc -U", "c:malloc -a 3")
SPELLING = Spelling(
    chosen=True,
    shows_program=True,
    filters={},
    ignored={"-K --kernel-stack": "kernel functions are not traced here"},
)
STACK = Column(
    *("stack", "", "stack", 0, "the frames, innermost first, with -U"), offsets="table", optional=True, nullable=True
)
COLUMNS = (
    *(TIME, COMM, PID, LATENCY_MS, replace(TID, heading="")),
    Column("retval", "RVAL", "count", 12, "the value that the function returned", show=hex),
    Column("function", "FUNC", "string", 20, "the function"),
    Column(
        "arguments",
        "ARGS",
        "list",
        0,
        "the first arguments at the entry, with -a",
        show=lambda a: " ".join(map(hex, a)),
    ),
    PYCALLER,
    STACK,
)


class Options(StackOptions, CallerOptions):
    """Options of `usdtkit funcslower`."""

    exclusive = (("min_ms", "min_us"),)
    functions: tuple[str, ...] = option(dest="function", nargs="+", metavar="FUNCTION", help="functions")
    min_ms: float = min_ms_option("show calls of MS ms or more (1)", default=1.0)
    min_us: float | None = option(
        *("-u", "--min-us"), type=milliseconds, default=None, metavar="US", help="show calls of US us or more"
    )
    arguments: int = option(
        *("-a", "--arguments"), type=int, choices=range(7), default=0, metavar="N", help="show the first N arguments"
    )
    time: bool = option("-T", "--time", default=False, help="show the time of day")
    timestamp: bool = option("-t", "--timestamp", default=False, help="show the seconds since the start")
    user_stack: bool = option("-U", "--user-stack", default=False, help="show the calls that led there")
    folded: bool = option(
        *("-f", "--folded"), dest="format", const="folded", default=None, help="with -U, write folded lines"
    )


def trace(session: Session, options: Options) -> Rows:
    """A row for each slow call, when it returns."""
    threshold = us(options.min_us) if options.min_us is not None else ms(options.min_ms)
    names = [f"arg{number}" for number in range(1, options.arguments + 1)]
    calls: dict[str, Expression] = {"pycaller": pycaller} if options.pycaller else {}
    calls |= {"stack": ustack} if options.user_stack else {}
    for function in options.functions:
        keep = {name: arg(number).cast("u64") for number, name in enumerate(names, 1)}
        pair = Setup(session).calls(function, keep)
        slow = pair.where(pair.latency >= threshold)
        slow.emit("latency", *names, comm=comm, retval=retval.cast("u64"), **calls)

    def describe(event: Any) -> Mapping[str, Any]:
        row: dict[str, Any] = event._asdict()
        row["function"] = row.pop("probe")
        row["arguments"] = [row.pop(name) for name in names]
        return row

    time = TIME if options.time else seconds_column() if options.timestamp else replace(TIME, heading="")
    latency = LATENCY_MS if options.min_us is None else LATENCY_US
    more = [column for column in (PYCALLER, STACK) if column.name in calls]
    columns = (time, COMM, PID, latency, *COLUMNS[4:-2], *more)
    return Rows(session, columns, describe)
