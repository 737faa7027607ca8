"""Show how long threads wait for mutexes, or hold them: by mutex and stack.

A wait is a call of pthread_mutex_lock, or of a timed lock, that took 50 us or longer (-m). With --hold, the time from
the lock to the unlock is shown, whether or not somebody waits. A recursive mutex is held from its first lock to its
last unlock. A wait for a condition releases the mutex, so it is not part of a hold.

examples:
  usdtkit mutexstat -p 1234 -d 10
  usdtkit mutexstat -p 1234 -i 1 --top 3       every second
  usdtkit mutexstat -p 1234 --hold -H          distributions of hold times, by mutex
"""

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.arguments import IntervalOptions, StackOptions
from usdtkit.cli.options import option
from usdtkit.cli.values import count, positive
from usdtkit.providers import locks
from usdtkit.records import replace
from usdtkit.results import BUCKETS, PID, Column, Histogram, Summaries, Table
from usdtkit.trace import Session, arg, latency, us

TOPIC = "memory and locks"
SCHEMA_VERSION = 3
VARIANTS = ("", "-H", "--hold", "--hold -H")
TIME = Column("", "", "duration", 10, unit="ms", optional=True)
STACK = Column(
    "stack", "STACK", "stack", meaning="the frames of the lock, innermost first", offsets="table", optional=True
)
COLUMNS = (
    *(replace(PID, heading=""), Column("mutex", "MUTEX", width=14, meaning="the address of the mutex")),
    Column("count", "COUNT", "count", 8, "how many waits, or holds"),
    replace(TIME, name="total_ns", heading="TOTAL(ms)", meaning="their time together"),
    replace(TIME, name="average_ns", heading="AVG(ms)", meaning="their average time"),
    replace(TIME, name="max_ns", heading="MAX(ms)", meaning="the longest of them"),
    *(STACK, *(column for column in BUCKETS if column.name != "count")),
)


class Options(IntervalOptions, StackOptions):
    """Options of `usdtkit mutexstat`."""

    hold: bool = option("--hold", default=False, help="show how long mutexes are held, not waited for")
    min_us: int | None = option(
        *("-m", "--min-us"),
        type=count,
        default=None,
        metavar="US",
        help="only times of US microseconds or more (default 50, with --hold 0)",
    )
    histogram: bool = option("-H", "--histogram", default=False, help="show the distribution of each mutex")
    stacks: bool = option("-s", "--stacks", default=False, help="show whole stacks, not only the caller")
    top: int = option("--top", type=positive, default=20, metavar="N", help="show the top N rows (default 20)")


def trace(session: Session, options: Options) -> Summaries:
    """Sum up waits or holds; those that took the most time first."""
    minimum_us = options.min_us if options.min_us is not None else 0 if options.hold else 50
    times = locks.holds(session) if options.hold else locks.waits(session)
    value, unit = (arg("held"), "hold_ns") if options.hold else (latency, "wait_ns")
    long = times.where(value >= us(minimum_us))
    if options.histogram:
        distributions = long.hist(value, "pid", "mutex")

        def histograms() -> Iterator[Histogram]:
            for (pid, mutex), distribution in by_time(distributions.delta(), options.top):
                yield Histogram(distribution, unit, {"pid": pid, "mutex": hex(mutex)})

        return Summaries(session, [column for column in COLUMNS if column is not STACK], histograms)
    statistics = long.stats(value, "pid", "mutex", "stack", anew=True)

    def rows() -> Iterator[Table]:
        if top := by_time(statistics.delta(), options.top):
            yield Table([row(key, times) for key, times in top])

    shown = replace(STACK, show=" < ".join) if options.stacks else replace(STACK, heading="CALLER", show=innermost)
    columns = [shown if column is STACK else column for column in COLUMNS if column not in BUCKETS]
    return Summaries(session, columns, rows)


def by_time(measured: Mapping[Any, Any], top: int) -> list[tuple[Any, Any]]:
    """The items whose times have the largest sums, the largest first."""
    return sorted(measured.items(), key=lambda entry: -entry[1].sum)[:top]


def row(key: Any, times: Any) -> Mapping[str, Any]:
    """A row of the statistics of one mutex and stack."""
    pid, mutex, stack = key
    amounts = {"total_ns": times.sum, "average_ns": round(times.average), "max_ns": times.max}
    return {"pid": pid, "mutex": hex(mutex), "count": times.count, **amounts, "stack": stack}


def innermost(labels: list[str]) -> str:
    """The label of the innermost frame."""
    return labels[0]
