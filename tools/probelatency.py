"""Show how long it takes from one probe to another, as a histogram or one by one.

START and END are LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE, in any combination.
The name of a function may be followed by its signature, which names its parameters. A start and an end belong together
if they happen in the same thread, the innermost first. With --key they belong together if the value of an expression is
equal, such as arg1, the number of a connection, or the address of an object; they may then happen in different threads.

examples:
  usdtkit probelatency postgresql:query__start postgresql:query__done
  usdtkit probelatency shop:order__start shop:order__done --key order_id -m 10      each of 10 ms or more
  usdtkit probelatency 'p:app:submit(struct job *job)' 'p:app:finish(int code, struct job *job)' --key job
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling, UnitOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.language.keys import resolve_with_key
from usdtkit.records import replace
from usdtkit.results import (
    BUCKETS,
    COMM,
    LATENCY_MS,
    PID,
    TID,
    TIME,
    Column,
    Histogram,
    Results,
    Rows,
    Summaries,
)  # fmt: skip
from usdtkit.trace import Session, comm, ms

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
SPELLING = Spelling(chosen=True, filters={})
END = Column("probe", "END", "string", 32, "the probe or function that ended it")
ROWS = (TIME, PID, COMM, LATENCY_MS, END, replace(TID, heading=""))
COLUMNS = (TIME, *(replace(column, optional=True) for column in ROWS[1:]), *BUCKETS)


class Options(UnitOptions, IntervalOptions):
    """Options of `usdtkit probelatency`."""

    min_ms: float | None = min_ms_option("show each pair of MS ms or more", default=None)
    milliseconds: bool = option("--milliseconds", dest="unit", const="ms", default=None, help="buckets in ms")
    start: str = option(metavar="START", help="where the time begins")
    end: str = option(metavar="END", help="where the time ends")
    key: str | None = option("-k", "--key", default=None, metavar="EXPR", help="pair where this value is equal")
    end_key: str | None = option("--end-key", default=None, metavar="EXPR", help="the key at END, if it differs there")


def trace(session: Session, options: Options) -> Results:
    """Measure, and show a histogram of each interval, or a row for each pair."""
    start, start_key = resolve_with_key(session, options.start, options.key)
    end, end_key = resolve_with_key(session, options.end, options.end_key or options.key)
    pair = session.pair(start, end, key=None if start_key is None or end_key is None else (start_key, end_key))
    if options.min_ms is not None:
        pair.where(pair.latency >= ms(options.min_ms)).emit("latency", comm=comm)
        return Rows(session, ROWS)
    latencies = pair.hist(pair.latency // options.unit_ns)

    def summarise() -> Iterator[Histogram]:
        for distribution in latencies.delta().values():
            yield Histogram(distribution, options.unit_name)

    return Summaries(session, BUCKETS, summarise)
