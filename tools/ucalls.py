"""Count the calls of a program's methods and functions, and how long they take: Java, Python, Ruby, PHP, Perl, Tcl.

The language is found out from the process. A class, file or package stands before each name. A Python needs no probes
of its own: start it as `usdtkit run`. Java's and PHP's must be switched on at the start; how is said where they are
not. The time of a call has that of the calls within it.

examples:
  usdtkit ucalls 1234                      until Ctrl-C, then all methods by the number of their calls
  usdtkit ucalls -L -T 10 1234 5           every 5 seconds the ten that took longest
  usdtkit javacalls 1234 -C 'com/shop/*'   of some classes
  usdtkit ucalls --histogram 1234 -M charge
"""

import argparse

from usdtkit.cli.languages import add_language_options, add_name_options, add_trailing_interval, tracing
from usdtkit.cli.run import follow_intervals
from usdtkit.cli.values import positive
from usdtkit.errors import UsageError
from usdtkit.output.report import Column, Report
from usdtkit.providers.runtimes import full_name
from usdtkit.trace import Histogram, Sums

TOPIC = "languages"

LANGUAGES = ("c", "java", "perl", "php", "python", "ruby", "tcl")
# Of C there are none: that is said, with what to do.
VARIANTS = tuple(f"-l {language} -p 1{more}" for language in LANGUAGES[1:] for more in ("", " -L"))
METHOD, CALLS = Column("METHOD", "method", 52), Column("# CALLS", "calls", 9, right=True)
TIMES = {False: ("TIME (us)", 1e3), True: ("TIME (ms)", 1e6)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ucalls`."""
    parser.add_argument("-L", "--latency", action="store_true", help="how long they took, too")
    parser.add_argument("-m", "--milliseconds", action="store_true", help="times in milliseconds, not microseconds")
    parser.add_argument("-T", "--top", type=positive, metavar="N", help="only the N with most calls, or most time")
    parser.add_argument("-S", "--syscalls", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--histogram", action="store_true", help="histograms of each method, with percentiles")
    add_name_options(parser)
    add_language_options(parser, *LANGUAGES)
    add_trailing_interval(parser)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    if options.syscalls:
        raise UsageError(
            "system calls are not traced here, only the program", hint="strace -c -p PID, or perf trace -s"
        )
    heading, unit = TIMES[options.milliseconds]
    time = Column(heading, "time_total_ns", 12, lambda ns: f"{ns / unit:.2f}", right=True)
    with tracing(options) as runtime:
        wanted = {"method": options.method or "", "group": options.group or ""}
        names = runtime.names
        times: Sums | None = None
        histograms: Histogram | None = None
        if options.histogram:
            histograms = runtime.calls(**wanted).hist("latency", *names)
        elif options.latency:
            calls = runtime.calls(**wanted)
            counts, times = calls.count(*names), calls.sum("latency", *names)
        else:
            counts = runtime.entries(**wanted).count(**names)

        def write(report: Report) -> None:
            if histograms is not None:
                for key, distribution in histograms.delta().items():
                    report.distribution(distribution, method=full_name(key))
                return
            called, took = counts.delta(), {} if times is None else times.delta()
            order = sorted(called, key=lambda key: (took.get(key, 0), called[key], full_name(key)))
            report.block(
                {
                    "method": full_name(key),
                    "calls": called[key],
                    **({"time_total_ns": took.get(key, 0)} if options.latency else {}),
                }
                for key in order[-(options.top or 0) :]
            )

        columns = [METHOD, CALLS, *([time] if options.latency else [])]
        return follow_intervals(runtime.session, options, "ucalls", columns, write)
