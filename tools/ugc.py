"""Show garbage collections: when each began, how long it took, and what it did. Java, Python, Ruby, Node.

Java's collections have a line for each memory pool, with the bytes that were used before and after. Node has had no
probes since version 19, so its collections are calls of V8's Heap::PerformGarbageCollection, during which the thread's
JavaScript stands still. If there is a language, but neither a PID nor a command, every process that runs the language
now is traced.

examples:
  usdtkit ugc 1234
  usdtkit ugc -M 10 1234              collections of 10 ms or longer
  usdtkit javagc -F Eden 1234         the pool Eden
  usdtkit nodegc                      every Node that runs here
  usdtkit ugc -c 'python3 app.py'
"""

from collections.abc import Mapping
from typing import Any

from usdtkit.cli import runtimeoptions
from usdtkit.cli.arguments import Spelling, process_argument
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import milliseconds
from usdtkit.providers import runtimes
from usdtkit.records import replace
from usdtkit.results import PID, TID, TIME, Column, Rows
from usdtkit.trace import Session, ms

TOPIC = "languages"
LANGUAGES = ("java", "node", "python", "ruby")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
SPELLING = Spelling(shows_program=True)
LATENCY = Column("latency_ns", "TIME(us)", "duration", 9, "how long it took", unit="us", role="weight")
COLUMNS = (
    replace(TIME, meaning="when it began, CLOCK_MONOTONIC in nanoseconds", role="start"),
    *(PID, TID, LATENCY),
    Column("kind", meaning="collection, pool, mark or sweep", role="name"),
    Column("description", "DESCRIPTION", meaning="what the probes say, and what changed from the start to the end"),
    Column("start", type="object", meaning="the arguments of the probe at the start; Node's collector and reason"),
    Column("end", type="object", meaning="the arguments of the probe at the end; none of Node"),
)


class Options(ToolOptions):
    """Options of `usdtkit ugc`."""

    process: int | str | None = process_argument()
    language: str | None = runtimeoptions.language_option(*LANGUAGES)
    minimum_ms: float = option(
        *("-M", "--minimum"), type=milliseconds, default=0.0, metavar="MS", help="only collections of MS ms or longer"
    )
    filter: str = option("-F", "--filter", default="", metavar="TEXT", help="only those with TEXT in the description")
    milliseconds: bool = option("-m", "--milliseconds", default=False, help="show times in milliseconds")


processes = runtimeoptions.processes


def trace(session: Session, options: Options) -> Rows:
    """Trace collections; a row when one ends."""
    collections = runtimes.of(session, options.language, among=LANGUAGES).collections(min_ns=ms(options.minimum_ms))

    def describe(event: Any) -> Mapping[str, Any] | None:
        collection = collections.take(event)
        if collection is None or options.filter not in collection.description:
            return None
        return {column.name: getattr(collection, column.name) for column in COLUMNS}

    in_ms = replace(LATENCY, heading="TIME(ms)", unit="ms")
    columns = [in_ms if options.milliseconds and column is LATENCY else column for column in COLUMNS]
    return Rows(session, columns, describe)
