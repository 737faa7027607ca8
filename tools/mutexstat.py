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
from typing import Any

from usdtkit.cli import run as cli
from usdtkit.cli.arguments import add_interval_options, add_session_options
from usdtkit.cli.values import count, positive
from usdtkit.output import folded
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.providers import locks
from usdtkit.trace import Histogram, StatisticsTable, arg, latency, us

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
    with cli.new_session(options) as session:
        table: Histogram | StatisticsTable
        calls = locks.holds(session) if options.hold else locks.waits(session)
        time = arg("held") if options.hold else latency
        long = calls.where(time >= minimum)
        table = long.hist(time, "pid", "mutex") if options.histogram else long.stats(time, "pid", "mutex", "stack")
        columns = [*COLUMNS, STACK if options.stacks else CALLER]
        return cli.follow_intervals(
            session, options, "mutexstat", columns, lambda report: write(report, table, options)
        )


def write(report: Report, table: Any, options: argparse.Namespace) -> None:
    """A row for each mutex and stack, or a histogram for each mutex; those first that cost most."""
    top = sorted(table.delta().items(), key=lambda item: -item[1].sum)[: options.top]
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
