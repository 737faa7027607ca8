"""Show garbage collections: when each began, how long it took, and what it did. Java, Python, Ruby, Node.

Of Java each pool's share is a line of its own, with what was used before and after. Node carries no probes since
version 19: there V8's Heap::PerformGarbageCollection is traced, during which the thread's JavaScript stands still. With
a language, but neither PID nor command, every process that runs it now is traced.

examples:
  usdtkit ugc 1234
  usdtkit ugc -M 10 1234              those that took 10 ms or longer
  usdtkit javagc -F Eden 1234         of the pool Eden
  usdtkit nodegc                      of every node that runs here
  usdtkit ugc -c 'python3 app.py'
"""

import argparse
from typing import Any

from usdtkit.cli.languages import add_language_options, tracing
from usdtkit.cli.run import follow
from usdtkit.cli.values import milliseconds
from usdtkit.output.report import PID, TIME, Column
from usdtkit.trace import ms

TOPIC = "languages"

LANGUAGES = ("java", "node", "python", "ruby")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
MICROSECONDS = ("TIME(us)", 1e3)
MILLISECONDS = ("TIME(ms)", 1e6)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ugc`."""
    parser.add_argument("-M", "--minimum", type=milliseconds, default=0.0, metavar="MS", help="only those this long")
    parser.add_argument("-F", "--filter", metavar="TEXT", help="only where the description has this in it")
    parser.add_argument("-m", "--milliseconds", action="store_true", help="times in milliseconds")
    add_language_options(parser, *LANGUAGES)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    heading, unit = MILLISECONDS if options.milliseconds else MICROSECONDS
    latency = Column(heading, "latency_ns", 9, lambda ns: f"{ns / unit:.2f}", right=True)
    columns = [TIME, PID, Column("TID", "tid", 7, right=True), latency, Column("DESCRIPTION", "description", 0)]
    with tracing(options) as runtime:
        collections = runtime.collections(min_ns=ms(options.minimum))

        def describe(event: Any) -> dict[str, Any] | None:
            collection = collections.take(event)
            if collection is None or (options.filter or "") not in collection.description:
                return None
            row = {name: getattr(collection, name) for name in ("time_ns", "pid", "tid", "latency_ns", "kind")}
            return {
                **row,
                "description": collection.description,
                "start": collection.start,
                "end": collection.end,
            }

        return follow(runtime.session, options, "ugc", columns, describe=describe)
