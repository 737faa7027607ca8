"""Show how long threads wait for mutexes, or hold them: by mutex and stack.

Waits are the calls of pthread_mutex_lock and the timed locks that took 50 us or longer (-m). With --hold, the time from
the lock to the unlock, whoever waits for it: of a recursive mutex the outermost, and without what pthread_cond_wait
waits, which lets go of the mutex meanwhile. MAX is since the start, all else of the interval.

examples:
  usdtkit mutexstat -p 1234 -d 10
  usdtkit mutexstat -p 1234 -i 1 --top 3       every second
  usdtkit mutexstat -p 1234 --hold -H          distributions of hold times, by mutex
"""

import argparse
from collections.abc import Sequence
from typing import Any

from usdtkit.cli import run as cli
from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.values import count, positive
from usdtkit.output import folded
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.signatures.libc import MUTEX_LIBRARIES
from usdtkit.trace import Expression, Histogram, Source, StatisticsTable, pid, us
from usdtkit.trace.mutexes import holds, waits

TOPIC = "memory and locks"
VARIANTS = ("", "-H", "--hold", "--hold -H")

TIMES = (("TOTAL", "total"), ("AVG", "average"), ("MAX", "max"))
COLUMNS = [
    *(Column("MUTEX", "mutex", 14), Column("COUNT", "count", 8, right=True)),
    *(Column(f"{heading}(ms)", f"{name}_ns", 10, milliseconds, right=True) for heading, name in TIMES),
]
CALLER = Column("CALLER", "stack", 0, lambda labels: str(labels[0]))
STACK = Column("STACK", "stack", 0, " < ".join)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit mutexstat`."""
    parser.add_argument("--hold", action="store_true", help="how long mutexes are held, not waited for")
    parser.add_argument("-m", "--min-us", type=count, metavar="US", help="only times this long (50; with --hold 0)")
    parser.add_argument("-H", "--histogram", action="store_true", help="the distribution of each mutex")
    parser.add_argument("-s", "--stacks", action="store_true", help="whole stacks, not only the caller")
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="so many rows (20)")
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Summarise until told to stop."""
    minimum = us(options.min_us if options.min_us is not None else 0 if options.hold else 50)
    tables: list[Histogram | StatisticsTable] = []

    def measure(source: Source, time: Expression, mutex: Expression, stack: Expression) -> None:
        long = source.where(time >= minimum)
        if options.histogram:
            tables.append(long.hist(time, process=pid, mutex=mutex))
        else:
            tables.append(long.stats(time, process=pid, mutex=mutex, stack=stack))

    with cli.new_session(options) as session:
        trace = holds if options.hold else waits
        cli.first_found(MUTEX_LIBRARIES, lambda library: trace(session, library, measure))
        columns = [*COLUMNS, STACK if options.stacks else CALLER]
        return cli.follow_intervals(
            session, options, "mutexstat", columns, lambda report: write(report, tables, options)
        )


def write(report: Report, tables: Sequence[Histogram | StatisticsTable], options: argparse.Namespace) -> None:
    """A row for each mutex and stack, or a histogram for each mutex; those first that cost most."""
    found: dict[Any, Any] = {}
    for table in tables:
        for key, one in table.delta().items():
            found[key] = found[key] + one if key in found else one
    top = sorted(found.items(), key=lambda item: -item[1].sum)[: options.top]
    folded.learn(stack for (_, _, *stacks), _ in top for stack in stacks)
    rows = []
    for (process, mutex, *stacks), one in top:
        whose = {"pid": process, "mutex": hex(mutex)}
        if options.histogram:
            report.histogram(one, "hold_ns" if options.hold else "wait_ns", **whose)
            continue
        times = {"total_ns": one.sum, "average_ns": round(one.average), "max_ns": one.greatest}
        labels = folded.labels(*stacks, offsets=True)
        rows.append({**whose, "count": one.count, **times, "stack": folded.cell(labels, report.format)})
    if rows:
        report.block(rows)
