"""Show how much time passes between one hit of a function or probe and the next in the same process, as a histogram.

A TARGET is LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE. Several functions that
match a glob count as one. The histogram shows what runs periodically, and with how much jitter. The first hit of a
process ends no interval: the summary counts it as unmatched. With a condition in parentheses behind the TARGET, as in
trace, an interval lasts from one hit that meets it to the next.

examples:
  usdtkit funcinterval c:malloc -p 1234 -i 3
  usdtkit funcinterval -u 'mysql:query__start' -d 10    in microseconds
  usdtkit funcinterval 'clock:tick (number % 60 == 0)'
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling, UnitOptions
from usdtkit.cli.options import option
from usdtkit.language.keys import side
from usdtkit.results import BUCKETS, Histogram, Summaries
from usdtkit.trace import Expression, Session, pid

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
    target = side(session, options.target)
    hits = target.places
    key: Expression = pid
    if target.condition is not None:
        # Hits that do not meet the condition make intervals of their own, which are not counted.
        key = pid + (~target.condition << 32)
    # Of two programs at one place the kernel runs the one that was attached later first: a hit ends the interval
    # since the hit before, and then starts the next.
    pair = session.pair(hits, hits, key=key)
    pair = pair if target.condition is None else pair.where(target.condition)
    intervals = pair.hist(pair.latency // options.unit_ns)

    def summarise() -> Iterator[Histogram]:
        for distribution in intervals.delta().values():
            yield Histogram(distribution, options.unit_name.replace("latency", "interval"))

    return Summaries(session, COLUMNS, summarise)
