"""Show how much time lies between one hit of a function or probe and the next in the same process, as a histogram.

A TARGET is LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE; several functions of a
glob count as one. It shows what runs periodically, and with what jitter. A process's first hit has no interval: the
summary counts it as unmatched.

examples:
  usdtkit funcinterval c:malloc -p 1234 -i 3
  usdtkit funcinterval -u 'mysql:query__start' -d 10    in microseconds
"""

import argparse

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options, add_unit_options
from usdtkit.language.parser import parse_trace
from usdtkit.language.select import one
from usdtkit.output.report import Report

TOPIC = "any function or probe"
VARIANTS = ("c:malloc",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit funcinterval`."""
    parser.add_argument("target", metavar="TARGET", help="a function or probe")
    add_unit_options(parser)
    add_interval_options(parser)
    add_filter_options(parser)
    add_session_options(parser, chosen=True, shows_program=True)


def run(options: argparse.Namespace) -> int:
    """Measure until told to stop."""
    with shared.new_session(options) as session:
        hits = one(session, parse_trace(options.target))
        # Of two programs at one place the kernel runs the one that was attached later first: a hit ends the interval
        # since the hit before, and then starts the next.
        pair = shared.filtered(session.pair(hits, hits, key="pid"), options)
        histogram = pair.hist(pair.latency // options.unit)

        def write(report: Report) -> None:
            for found in histogram.delta().values():
                report.distribution(found, options.unit_name.replace("latency", "interval"))

        return shared.follow_intervals(session, options, "funcinterval", (), write)
