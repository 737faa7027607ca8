"""Count the stacks that lead to functions or USDT probes.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), a command or a file; globs are allowed: c:pthread_*_lock
  PROVIDER:PROBE             USDT probes of everything that runs, or of -p, if no LIBRARY has such a FUNCTION
  u:LIBRARY:PROVIDER:PROBE   USDT probes of a library, a command or a file; PROVIDER may be left out
A condition in parentheses behind the PATTERN chooses among the hits, as in trace; docs/language.md describes it.
Instead of hits, --sum sums up a value, and --by-latency the time of calls from entry to return.
Stacks are whole, whatever the program was compiled with, and have Python's functions. A stack that is not says why.

examples:
  usdtkit stackcount c:malloc -p 1234
  usdtkit stackcount 'c:pthread_*_lock' -i 1 -T      every second, with the time
  usdtkit stackcount shop:order__start -f > stacks.folded
  usdtkit stackcount 'c:malloc(size_t size) (size > 4096)' --sum size      stacks by bytes
  usdtkit stackcount c:fsync --by-latency                                  stacks by time
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from usdtkit.cli.arguments import IntervalOptions, Spelling, StackOptions
from usdtkit.cli.options import option
from usdtkit.cli.values import seconds
from usdtkit.language.hooks import Setup
from usdtkit.output import frames
from usdtkit.output.histogram import duration
from usdtkit.records import replace
from usdtkit.results import COMM, PID, Column, StackSum, Summaries
from usdtkit.trace import Counts, Session, Sources, StatisticsTable, ustack

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
VARIANTS = ("c:malloc", "c:malloc -P")
SPELLING = Spelling(chosen=True, verbose="show addresses", filters={})
THREAD = (
    replace(PID, heading="", optional=True, meaning="the process, with -P"),
    replace(COMM, heading="", optional=True, meaning="the name of the thread, with -P"),
)
COUNT = Column("count", type="count", meaning="hits with this stack; with -i in this interval", role="weight")
HITS = replace(COUNT, role="")
SUM = Column("sum", type="integer", meaning="with --sum: the sum of the values of these hits", role="weight")
LATENCY = Column("total_ns", type="duration", meaning="with --by-latency: the time of these calls", role="weight")
STACK = Column("stack", type="stack", meaning="the frames, innermost first")
COLUMNS = (*THREAD, COUNT, replace(SUM, optional=True), replace(LATENCY, optional=True), STACK)


class Options(IntervalOptions, StackOptions):
    """Options of `usdtkit stackcount`."""

    exclusive = (("sum", "by_latency"),)
    pattern: str = option(metavar="PATTERN", help="functions or probes, perhaps with a condition")
    sum: str | None = option(
        "--sum", default=None, metavar="EXPR", help="sum up this value, such as arg1 or size, instead of counting"
    )
    by_latency: bool = option(
        "--by-latency", default=False, help="sum up how long the functions take, from entry to return"
    )
    duration: float | None = option("-D", type=seconds, default=None, metavar="SEC", help="bcc's spelling of -d")
    regexp: bool = option(
        *("-r", "--regexp"), default=False, help="read FUNCTION or PROVIDER:PROBE as a regular expression"
    )
    offset: bool = option("-s", "--offset", default=False, help="show offsets in the functions")
    perpid: bool = option("-P", "--perpid", default=False, help="count each process by itself")
    folded: bool = option(
        *("-f", "--folded"), dest="format", const="folded", default=None, help="write folded lines, for flame graphs"
    )
    debug: bool = option("--debug", dest="program", default=False, help="show the BPF program, as --program does")
    user_only: bool = option(
        *("-U", "--user-stacks-only"),
        default=False,
        help="accepted for compatibility with bcc; there are no kernel stacks here",
    )
    addresses: bool = option(dest="verbose", default=False)


def trace(session: Session, options: Options) -> Summaries:
    """Sum up, and show the stacks of each interval, those with the most last."""
    setup, who = Setup(session), ("pid", "comm") if options.perpid else ()
    if options.by_latency:
        calls = setup.calls(options.pattern, {"stack": ustack}, regexp=options.regexp)
        table: Counts | StatisticsTable = calls.stats("latency", *who, "stack")
    else:
        hooks = setup.counting(options.pattern, regexp=options.regexp, valued=options.sum is not None)
        if options.sum is None:
            table = Sources(*(hook.source() for hook in hooks)).count(*who, stack=ustack)
        else:
            # Where several probes have other arguments, the expression means another value at each.
            amounts = [hook.lowering.number_of(options.sum) for hook in hooks]
            sources = [hook.source().derive(amount_=amount) for hook, amount in zip(hooks, amounts, strict=True)]
            table = Sources(*sources).stats("amount_", *who, stack=ustack)
    weight = LATENCY if options.by_latency else COUNT if options.sum is None else SUM

    labelled: Any = {"offsets": options.offset, "addresses": options.addresses, "kind": options.frames}

    def summarise() -> Iterator[StackSum]:
        new = table.delta()
        frames.learn(stack for *_, stack in new)
        # Stacks of several processes with the same names are one, unless each process is asked for.
        alike: dict[tuple[Any, ...], list[Any]] = {}
        hits: Counter[tuple[Any, ...]] = Counter()
        weights: Counter[tuple[Any, ...]] = Counter()
        for (*process, stack), measured in new.items():
            key = (frames.labels(stack, **labelled), *process)
            alike.setdefault(key, []).append(stack)
            hits[key] += measured if isinstance(measured, int) else measured.count
            weights[key] += measured if isinstance(measured, int) else measured.sum
        for key, amount in sorted(weights.items(), key=lambda item: item[1]):
            values = dict(zip(("pid", "comm"), key[1:], strict=False))
            owner = f"{values['comm'] or '?'}-{values['pid']}" if values else ""
            after = [f"    {values['comm'] or '?'} [{values['pid']}]"] if values else []
            after.append(f"    {weight_text(weight, amount, hits[key])}")
            values |= {"count": hits[key], weight.name: amount}
            stack = frames.common(alike[key], options.frames)
            yield StackSum(stack, amount // 1000 if weight is LATENCY else amount, values, [""], after, owner)

    shown = replace(STACK, offsets="all" if options.offset else "", addresses=options.addresses)
    columns = (*(THREAD if options.perpid else ()), *(() if weight is COUNT else (HITS,)), weight, shown)
    return Summaries(session, columns, summarise)


def weight_text(weight: Column, amount: int, hits: int) -> str:
    """The weight of a stack as a table shows it."""
    if weight is COUNT:
        return str(amount)
    amounts = duration(amount) if weight is LATENCY else str(amount)
    return f"{amounts} in {hits} {'hit' if hits == 1 else 'hits'}"
