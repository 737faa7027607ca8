"""Show how long functions take, as histograms.

A PATTERN is LIBRARY:FUNCTION: functions of a library ("c"), a command or a file; globs allowed. The time is from entry
to return, of recursive and nested calls each. To measure between two probes, see usdtkit probelatency.

examples:
  usdtkit funclatency c:getaddrinfo
  usdtkit funclatency -u 'c:*printf' -F -p 1234    in microseconds, one histogram a function
  usdtkit funclatency -mTi 5 c:read                every 5 seconds, in milliseconds, with the time
"""

import argparse

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import (
    add_filter_options,
    add_ignored_options,
    add_interval_options,
    add_session_options,
    add_unit_options,
)
from usdtkit.language.select import calls
from usdtkit.output.report import Report

TOPIC = "any function or probe"
VARIANTS = ("c:malloc", "c:malloc -F")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit funclatency`."""
    parser.add_argument("pattern", metavar="PATTERN", help="functions")
    parser.add_argument("-r", "--regexp", action="store_true", help="the name is a regular expression")
    parser.add_argument("-F", "--function", action="store_true", help="a histogram for each function and process")
    add_unit_options(parser)
    add_ignored_options(parser, {"-l --level": "nested calls are measured right, however deep"}, takes_value=True)
    add_interval_options(parser)
    add_filter_options(parser)
    add_session_options(parser, chosen=True, shows_program=True)


def run(options: argparse.Namespace) -> int:
    """Measure until told to stop."""
    with shared.new_session(options) as session:
        pair = shared.filtered(session.pair(calls(session, options.pattern, regexp=options.regexp)), options)
        keys = ("probe", "pid") if options.function else ()
        histogram = pair.hist(pair.latency // options.unit, *keys)

        def write(report: Report) -> None:
            for key, found in sorted(histogram.delta().items()):
                of = dict(zip(("function", "pid"), key, strict=False))
                report.distribution(found, options.unit_name, **of)

        return shared.follow_intervals(session, options, "funclatency", (), write)
