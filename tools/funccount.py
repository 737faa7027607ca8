"""Count calls of functions, or hits of USDT probes, in the kernel.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), command or file; globs allowed: 'c:str*'
  PROVIDER:PROBE             USDT probes of all that runs, or of -p, where no LIBRARY has such a FUNCTION
  u:LIBRARY:PROVIDER:PROBE   those of a library, command or file; without PROVIDER too
Any number of functions can match. What was not called is not shown.

examples:
  usdtkit funccount 'c:str*' -p 1234 -d 10
  usdtkit funccount -r 'c:^(read|write)$' -i 1 -T    every second, with the time
  usdtkit funccount 'shop:*'
  usdtkit funccount 'u:mariadbd:mysql:query__*'
"""

import argparse

from usdtkit.cli import run as shared
from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options
from usdtkit.language.select import matching
from usdtkit.output.report import Column, Report
from usdtkit.output.text import show

TOPIC = "any function or probe"
VARIANTS = ("c:malloc",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit funccount`."""
    parser.add_argument("pattern", metavar="PATTERN", help="functions or probes")
    parser.add_argument("-r", "--regexp", action="store_true", help="the names are a regular expression")
    parser.add_argument("-D", "--debug", dest="program", action="store_true", help="as --program")
    add_interval_options(parser)
    add_filter_options(parser)
    add_session_options(parser, chosen=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    with shared.new_session(options) as session:
        source = session.source(matching(session, options.pattern, regexp=options.regexp))
        counts = shared.filtered(source, options).count("probe")

        def write(report: Report) -> None:
            rows = sorted(counts.delta().items(), key=lambda item: item[1])
            report.block({"function": name, "count": count} for (name,), count in rows)

        columns = [Column("FUNC", "function", 40, show), Column("COUNT", "count", 12, right=True)]
        return shared.follow_intervals(session, options, "funccount", columns, write)
