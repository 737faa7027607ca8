"""Show how long functions take, as histograms.

A PATTERN is LIBRARY:FUNCTION: functions of a library ("c"), a command or a file; globs are allowed. The time is
measured from entry to return. Recursive and nested calls are measured one by one. A condition in parentheses behind the
PATTERN chooses among the calls, as in trace: by what they were given, or behind r:LIBRARY:FUNCTION by what they
returned. To measure from one probe to another, use usdtkit probelatency.

examples:
  usdtkit funclatency c:getaddrinfo
  usdtkit funclatency -u 'c:*printf' -F -p 1234    in microseconds, one histogram a function
  usdtkit funclatency -mTi 5 c:read                every 5 seconds, in milliseconds, with the time
  usdtkit funclatency 'c:malloc(size_t size) (size > 4096)'
  usdtkit funclatency 'r:c:read ((int)retval < 0)'
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling, UnitOptions
from usdtkit.cli.options import option
from usdtkit.language.hooks import Setup
from usdtkit.results import BUCKETS, Column, Histogram, Summaries
from usdtkit.trace import Session

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
VARIANTS = ("c:malloc", "c:malloc -F")
SPELLING = Spelling(
    chosen=True,
    shows_program=True,
    filters={},
    ignored_with_value={"-l --level": "nested calls are measured right, however deep"},
)
LABELS = (
    Column("function", optional=True, meaning="the function, with -F"),
    Column("pid", type="integer", optional=True, meaning="the process, with -F"),
)
COLUMNS = (*LABELS, *BUCKETS)


class Options(UnitOptions, IntervalOptions):
    """Options of `usdtkit funclatency`."""

    pattern: str = option(metavar="PATTERN", help="functions")
    regexp: bool = option("-r", "--regexp", default=False, help="read the name as a regular expression")
    function: bool = option("-F", "--function", default=False, help="a histogram for each function and process")


def trace(session: Session, options: Options) -> Summaries:
    """Measure, and show histograms of each interval."""
    pair = Setup(session).calls(options.pattern, regexp=options.regexp)
    keys = ("probe", "pid") if options.function else ()
    latencies = pair.hist(pair.latency // options.unit_ns, *keys)

    def summarise() -> Iterator[Histogram]:
        for key, distribution in sorted(latencies.delta().items()):
            labels = dict(zip(("function", "pid"), key, strict=False))
            yield Histogram(distribution, options.unit_name, labels)

    return Summaries(session, COLUMNS if options.function else BUCKETS, summarise)
