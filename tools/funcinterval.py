"""Show how much time passes between one hit of a function or probe and the next in the same process, as a histogram.

A TARGET is LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE. Several functions that
match a glob count as one. The histogram shows what runs periodically, and with how much jitter. The first hit of a
process ends no interval: the summary counts it as unmatched.

examples:
  usdtkit funcinterval c:malloc -p 1234 -i 3
  usdtkit funcinterval -u 'mysql:query__start' -d 10    in microseconds
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling, UnitOptions
from usdtkit.cli.options import option
from usdtkit.language.parser import parse_trace
from usdtkit.language.select import resolve_single
from usdtkit.results import BUCKETS, Histogram, Summaries
from usdtkit.trace import Session

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
VARIANTS = ("c:malloc",)
SPELLING = Spelling(chosen=True, shows_program=True, filters={})
COLUMNS = BUCKETS


class Options(UnitOptions, IntervalOptions):
    """Options of `usdtkit funcinterval`."""

    target: str = option(metavar="TARGET", help="a function or probe")


def trace(session: Session, options: Options) -> Summaries:
    """Measure, and show a histogram of each interval."""
    hits = resolve_single(session, parse_trace(options.target))
    # Of two programs at one place the kernel runs the one that was attached later first: a hit ends the interval
    # since the hit before, and then starts the next.
    pair = session.pair(hits, hits, key="pid")
    intervals = pair.hist(pair.latency // options.unit_ns)

    def summarise() -> Iterator[Histogram]:
        for distribution in intervals.delta().values():
            yield Histogram(distribution, options.unit_name.replace("latency", "interval"))

    return Summaries(session, COLUMNS, summarise)
