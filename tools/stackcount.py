"""Count the stacks that lead to functions or USDT probes.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), a command or a file; globs are allowed: c:pthread_*_lock
  PROVIDER:PROBE             USDT probes of everything that runs, or of -p, if no LIBRARY has such a FUNCTION
  u:LIBRARY:PROVIDER:PROBE   USDT probes of a library, a command or a file; PROVIDER may be left out
Callers are found by frame pointers. Of code that was compiled without them (-fomit-frame-pointer, the default of many
compilers) the stack shows the function, its caller, and then those callers that do have frame pointers.

examples:
  usdtkit stackcount c:malloc -p 1234
  usdtkit stackcount 'c:pthread_*_lock' -i 1 -T      every second, with the time
  usdtkit stackcount shop:order__start -f > stacks.folded
"""

from collections import Counter
from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling
from usdtkit.cli.options import option
from usdtkit.cli.values import seconds
from usdtkit.language.select import matching
from usdtkit.output import frames
from usdtkit.records import replace
from usdtkit.results import COMM, PID, Column, StackSum, Summaries
from usdtkit.trace import Session, comm, pid, ustack

TOPIC = "any function or probe"
VARIANTS = ("c:malloc", "c:malloc -P")
SPELLING = Spelling(chosen=True, verbose="show addresses", filters={})
THREAD = (
    replace(PID, heading="", optional=True, meaning="the process, with -P"),
    replace(COMM, heading="", optional=True, meaning="the name of the thread, with -P"),
)
COUNTED = (
    Column("count", type="count", meaning="hits with this stack; with -i in this interval", role="weight"),
    Column("stack", type="stack", meaning="the frames, innermost first"),
)
COLUMNS = (*THREAD, *COUNTED)


class Options(IntervalOptions):
    """Options of `usdtkit stackcount`."""

    pattern: str = option(metavar="PATTERN", help="functions or probes")
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
    """Count, and show the stacks of each interval, the most frequent last."""
    source = session.source(matching(session, options.pattern, regexp=options.regexp))
    keys = {"process": pid, "command": comm} if options.perpid else {}
    counts = source.count(stack=ustack, **keys)
    before: Counter[tuple[object, ...]] = Counter()

    def summarise() -> Iterator[StackSum]:
        totals: Counter[tuple[object, ...]] = Counter()
        stacks = counts.read()
        frames.learn(stack for stack, *_ in stacks)
        # Stacks of several processes with the same names are one, unless each process is asked for.
        for (stack, *process), count in stacks.items():
            labels = frames.labels(stack, offsets=options.offset, addresses=options.addresses)
            totals[(labels, *process)] += count
        new = totals - before
        before.update(new)
        for (frames_of, *process), count in sorted(new.items(), key=lambda item: item[1]):
            values = dict(zip(("pid", "comm"), process, strict=False))
            owner = f"{values['comm'] or '?'}-{values['pid']}" if values else ""
            after = [f"    {values['comm'] or '?'} [{values['pid']}]"] if values else []
            yield StackSum(frames_of, count, {**values, "count": count}, [""], [*after, f"    {count}"], owner)

    return Summaries(session, COLUMNS if options.perpid else COUNTED, summarise)
