"""Count the calls of a program's methods and functions: Java, Python, Ruby, PHP, Perl, Tcl.

The language is found out from the files of the process. Each name begins with the class, file or package of the method.
Any Python can be traced if it was started as `usdtkit run`. Java and PHP must be started with an option that switches
their probes on; without it, the error says which one. With -L and --histogram the time of a call includes that of the
calls within it.

examples:
  usdtkit ucalls 1234                      count until Ctrl-C, then print all methods, the most called last
  usdtkit ucalls -L -T 10 1234 5           print every 5 seconds the ten that took the most time
  usdtkit javacalls 1234 -C 'com/shop/*'   count calls of some classes
  usdtkit ucalls --histogram 1234 -M charge
"""

import argparse
from collections.abc import Iterator

from usdtkit.cli import runtimeoptions
from usdtkit.cli.arguments import Spelling, process_argument
from usdtkit.cli.options import option
from usdtkit.cli.values import positive
from usdtkit.errors import UsageError
from usdtkit.providers import runtimes
from usdtkit.records import replace
from usdtkit.results import BUCKETS, Column, Histogram, Summaries, Table
from usdtkit.trace import Session

TOPIC = "languages"
SCHEMA_VERSION = 2
LANGUAGES = ("c", "java", "perl", "php", "python", "ruby", "tcl")
# There are no calls of C to see: `trace` refuses it with a hint.
VARIANTS = tuple(f"-l {language} -p 1{more}" for language in LANGUAGES[1:] for more in ("", " -L"))
SPELLING = Spelling(shows_program=True)
METHOD = Column("method", "METHOD", width=52, meaning="the class, file or package, and the method")
CALLS = Column("calls", "# CALLS", "count", 9, "calls in the interval", optional=True)
TIME_TOTAL = Column(
    *("time_total_ns", "TIME (us)", "duration", 12, "the time that these calls took together, with -L"),
    unit="us",
    optional=True,
)
COLUMNS = (METHOD, CALLS, TIME_TOTAL, *BUCKETS)


class Options(runtimeoptions.MethodOptions):
    """Options of `usdtkit ucalls`."""

    process: int | str | None = process_argument()
    interval: float | None = runtimeoptions.interval_argument()
    language: str | None = runtimeoptions.language_option(*LANGUAGES)
    latency: bool = option("-L", "--latency", default=False, help="show how long the calls took, too")
    milliseconds: bool = option(
        "-m", "--milliseconds", default=False, help="show times in milliseconds, not microseconds"
    )
    top: int = option(
        *("-T", "--top"), type=positive, default=0, metavar="N", help="only the N with the most calls, or with -L time"
    )
    syscalls: bool = option("-S", "--syscalls", default=False, help=argparse.SUPPRESS)
    histogram: bool = option(
        "--histogram", default=False, help="show a histogram of the latencies of each method, with percentiles"
    )


processes = runtimeoptions.processes


def trace(session: Session, options: Options) -> Summaries:
    """Count calls; the methods of each interval, those with the most last."""
    if options.syscalls:
        raise UsageError("system calls are not counted here", hint="strace -c -p PID, or perf trace -s")
    runtime = runtimes.of(session, options.language, among=LANGUAGES)
    if options.histogram:
        return latencies(runtime, options)
    if not options.latency:
        counts = runtime.entries(method=options.method, group=options.group).count(**runtime.names)
        times = None
    else:
        calls = runtime.calls(method=options.method, group=options.group)
        counts, times = calls.count(*runtime.names), calls.sum("latency", *runtime.names)

    def summarise() -> Iterator[Table]:
        called = counts.delta()
        took = {} if times is None else times.delta()
        order = sorted(called, key=lambda key: (took.get(key, 0), called[key], runtimes.full_name(key)))
        yield Table([
            {"method": runtimes.full_name(key), "calls": called[key]}
            | ({"time_total_ns": took.get(key, 0)} if options.latency else {})
            for key in order[-options.top :]
        ])  # fmt: skip

    time = replace(TIME_TOTAL, heading="TIME (ms)", unit="ms") if options.milliseconds else TIME_TOTAL
    return Summaries(session, [METHOD, CALLS, *([time] if options.latency else [])], summarise)


def latencies(runtime: runtimes.Runtime, options: Options) -> Summaries:
    """A histogram for each method."""
    calls = runtime.calls(method=options.method, group=options.group)
    histograms = calls.hist("latency", *runtime.names)

    def summarise() -> Iterator[Histogram]:
        for key, distribution in histograms.delta().items():
            yield Histogram(distribution, labels={"method": runtimes.full_name(key)})

    return Summaries(runtime.session, [METHOD, *BUCKETS], summarise)
