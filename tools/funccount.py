"""Count calls of functions, or hits of USDT probes, in the kernel.

A PATTERN is
  LIBRARY:FUNCTION           functions of a library ("c"), a command or a file; globs are allowed: 'c:str*'
  PROVIDER:PROBE             USDT probes of everything that runs, or of -p, if no LIBRARY has such a FUNCTION
  u:LIBRARY:PROVIDER:PROBE   USDT probes of a library, a command or a file; PROVIDER may be left out
Any number of functions can match. Functions that were not called are not shown. A condition in parentheses behind the
PATTERN chooses among the hits, as in trace; docs/language.md describes it. r:LIBRARY:FUNCTION counts returns.

examples:
  usdtkit funccount 'c:str*' -p 1234 -d 10
  usdtkit funccount -r 'c:^(read|write)$' -i 1 -T    every second, with the time
  usdtkit funccount 'shop:*'
  usdtkit funccount 'p:c:mem* (arg3 > 100)'
  usdtkit funccount 'r:c:read ((int)retval < 0)'
  usdtkit funccount 'u:mariadbd:mysql:query__*'
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import IntervalOptions, Spelling
from usdtkit.cli.options import option
from usdtkit.language.hooks import Setup
from usdtkit.results import Column, Summaries, Table
from usdtkit.trace import Session, Sources

TOPIC = "any function or probe"
VARIANTS = ("c:malloc",)
SPELLING = Spelling(chosen=True, filters={})
COLUMNS = (
    Column("function", "FUNC", "string", 40, "the function, or PROVIDER:PROBE"),
    Column("count", "COUNT", "count", 12, "how often it was called; with -i in this interval"),
)


class Options(IntervalOptions):
    """Options of `usdtkit funccount`."""

    pattern: str = option(metavar="PATTERN", help="functions or probes")
    regexp: bool = option("-r", "--regexp", default=False, help="read the names as a regular expression")
    debug: bool = option("-D", "--debug", dest="program", default=False, help="show the BPF program, as --program does")


def trace(session: Session, options: Options) -> Summaries:
    """Count, and show the counts of each interval, the highest last."""
    hooks = Setup(session).counting(options.pattern, regexp=options.regexp)
    counts = Sources(*(hook.source() for hook in hooks)).count("probe")

    def summarise() -> Iterator[Table]:
        by_count = sorted(counts.delta().items(), key=lambda item: item[1])
        yield Table({"function": name, "count": count} for (name,), count in by_count)

    return Summaries(session, COLUMNS, summarise)
