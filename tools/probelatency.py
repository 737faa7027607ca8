"""Show how long it takes from one probe to another, as a histogram or one by one.

START and END are LIBRARY:FUNCTION, r:LIBRARY:FUNCTION, PROVIDER:PROBE or u:LIBRARY:PROVIDER:PROBE, in any combination.
The name of a function may be followed by its signature, which names its parameters. START and END may each have a
condition in parentheses, as in trace: only pairs that meet it are measured. A start and an end belong together if they
happen in the same thread, the innermost first. With --key they belong together if the value of an expression is equal,
such as arg1, the number of a connection, or the address of an object; they may then happen in different threads.

examples:
  usdtkit probelatency postgresql:query__start postgresql:query__done
  usdtkit probelatency shop:order__start shop:order__done --key order_id -m 10      each of 10 ms or more
  usdtkit probelatency 'p:app:submit(struct job *job)' 'p:app:finish(int code, struct job *job)' --key job
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling, UnitOptions, min_ms_option
from usdtkit.cli.options import option
from usdtkit.language.keys import side
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
    start = side(session, options.start, options.key)
    end = side(session, options.end, options.end_key or options.key)
    keys = None if start.key is None or end.key is None else (start.key, end.key)
    keep = {} if start.condition is None else {"is_wanted": start.condition}
    pair = session.pair(start.places, end.places, key=keys, keep=keep)
    for condition in (end.condition, *(map(pair.kept, keep))):
        pair = pair if condition is None else pair.where(condition)
    if options.min_ms is not None:
        pair.where(pair.latency >= ms(options.min_ms)).emit("latency", comm=comm)
        return Rows(session, ROWS)
    latencies = pair.hist(pair.latency // options.unit_ns)

    def summarise() -> Iterator[Histogram]:
        for distribution in latencies.delta().values():
            yield Histogram(distribution, options.unit_name)

    return Summaries(session, BUCKETS, summarise)
