"""Count the values of arguments, returns and latencies, or make histograms of them.

A SPEC is  TARGET(SIGNATURE)[:TYPES:VALUES[:CONDITION]][#LABEL]  in the language of bcc's argdist. A TARGET is
  p:LIBRARY:FUNCTION         a function's entry
  r:LIBRARY:FUNCTION         its return, with $retval, $latency (ns) and $entry(NAME): NAME as it was at the entry
  u:LIBRARY:PROVIDER:PROBE   a USDT probe, with arg1 … or the names of its arguments; PROVIDER may be left out
docs/language.md describes the whole language. As in bcc, -c means --cumulative here; --command starts a command.

examples:
  usdtkit argdist -C 'p:c:write(int fd, void *buf, size_t count):int:fd'
  usdtkit argdist -H 'r:c:malloc(size_t size):size_t:$entry(size)' -p 1234 -i 5
  usdtkit argdist -H 'r:c:open(char *path):u64:$latency/1000:STRCMP("/etc/passwd", $entry(path))#us to open it'
  usdtkit argdist -C 'u:mariadbd:mysql:query__start():char*:arg1' -z 64 -T 10
  usdtkit argdist -H 'p:c:read(int fd, void *buf, size_t n):size_t:n' --linear 0:65536:4096
"""

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.arguments import Spelling
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import positive, seconds, steps
from usdtkit.errors import UsageError
from usdtkit.language.distributions import distribute
from usdtkit.language.hooks import Setup
from usdtkit.output.text import printable, show_argument
from usdtkit.results import BUCKETS, Column, Histogram, Summaries, Table
from usdtkit.results.blocks import Block
from usdtkit.trace import Session

TOPIC = "any function or probe"
SCHEMA_VERSION = 2
SPELLING = Spelling(
    command=("--command",),
    chosen=True,
    shows_program=True,
    filters={"tid": "-t"},
    ignored_with_value={"-I --include": "types are known, or not needed"},
    timestamps=True,
)


def event(key: Mapping[str, Any]) -> str:
    """The names and values of a key as text, such as "fd = 3, size = 16"."""
    return ", ".join(f"{printable(name)} = {show_argument(value)}" for name, value in key.items()) or "total calls"


COLUMNS = (
    Column("count", "COUNT", "count", 10, "how often this key occurred; of a histogram, how many values there are"),
    Column("key", "EVENT", "object", 0, "with -C: the values by their expressions", show=event, optional=True),
    Column("spec", meaning="the label, or the specification if it has none"),
    *(column for column in BUCKETS if column.name != "count"),
)


class Options(ToolOptions):
    """Options of `usdtkit argdist`."""

    specs: tuple[tuple[str, bool], ...] = option(
        *("-H", "--histogram"),
        type=lambda text: (text, True),
        action="append",
        default=(),
        metavar="SPEC",
        help="a histogram of one number",
    )
    counts: tuple[tuple[str, bool], ...] = option(
        *("-C", "--count"),
        type=lambda text: (text, False),
        action="append",
        dest="specs",
        default=(),
        metavar="SPEC",
        help="counts by one or several values",
    )
    linear: tuple[int, int, int] | None = option(
        "--linear", type=steps, default=None, metavar="LOW:HIGH:STEP", help="histograms with buckets of equal width"
    )
    string_size: int = option(
        *("-z", "--string-size"),
        type=int,
        default=80,
        metavar="N",
        help="read N bytes of a string (80)",
        session="string_size",
    )
    interval: float = option(
        "-i", "--interval", type=seconds, default=1.0, metavar="SEC", help="print every SEC seconds (1)"
    )
    intervals: int | None = option(
        "-n", "--number", type=positive, default=None, metavar="N", help="stop after N intervals"
    )
    cumulative: bool = option(
        "-c", "--cumulative", default=False, help="count from the start, not from the last output"
    )
    top: int | None = option(
        "-T", "--top", type=positive, default=None, metavar="N", help="show only the N highest counts"
    )


def trace(session: Session, options: Options) -> Summaries:
    """Count, and show the counts and histograms of each interval."""
    specs = options.specs or options.counts
    if not specs:
        raise UsageError("nothing to count", hint="-C SPEC or -H SPEC; usdtkit argdist -h shows examples")
    setup = Setup(session, options.string_size)
    distributed = [
        (distribute(setup, text, histogram=histogram, linear=options.linear), histogram) for text, histogram in specs
    ]

    def summarise() -> Iterator[Block]:
        for spec, histogram in distributed:
            if histogram:
                values = spec.distribution(cumulative=options.cumulative)
                yield Histogram(values, spec.names[0], {"spec": spec.title})
                continue
            counts = spec.counts(cumulative=options.cumulative)[-(options.top or 0) :]
            yield Table(
                (
                    {"spec": spec.title, "key": dict(zip(spec.names, key, strict=False)), "count": count}
                    for key, count in counts
                ),
                title=spec.title,
            )

    return Summaries(session, COLUMNS, summarise)
