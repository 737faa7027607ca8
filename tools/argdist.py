"""Count the values of arguments, returns and latencies, sum them up, or make histograms of them.

A SPEC is  TARGET(SIGNATURE)[:TYPES:VALUES[:CONDITION]][#LABEL]  in the language of bcc's argdist. A TARGET is
  p:LIBRARY:FUNCTION         a function's entry
  r:LIBRARY:FUNCTION         its return, with $retval, $latency (ns) and $entry(NAME): NAME as it was at the entry
  u:LIBRARY:PROVIDER:PROBE   a USDT probe, with arg1 … or the names of its arguments; PROVIDER may be left out
-C counts the combinations of all VALUES. -H, -S, --avg, --min, --max and --stats measure the last of the VALUES, a
number, for each combination of those before it. docs/language.md describes the whole language. As in bcc, -c means
--cumulative here; --command starts a command.

examples:
  usdtkit argdist -C 'p:c:write(int fd, void *buf, size_t count):int:fd'
  usdtkit argdist -H 'r:c:malloc(size_t size):size_t:$entry(size)' -p 1234 -i 5
  usdtkit argdist -H 'r:c:open(char *path):u64:$latency/1000:STRCMP("/etc/passwd", $entry(path))#us to open it'
  usdtkit argdist -S 'p:c:write(int fd, void *buf, size_t n):int,size_t:fd,n#bytes by descriptor'
  usdtkit argdist --stats 'r:c:read(int fd):u32,int,u64:$pid,$entry(fd),$latency' -T 10
  usdtkit argdist -C 'u:mariadbd:mysql:query__start():char*:arg1' -z 64 -T 10
  usdtkit argdist -H 'p:c:read(int fd, void *buf, size_t n):size_t:n' --linear 0:65536:4096
"""

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.arguments import Spelling
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import positive, seconds, steps
from usdtkit.errors import UsageError
from usdtkit.language.distributions import Distributed, Kind, distribute
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


SUM = Column("sum", "SUM", "integer", 14, "the sum of the values", optional=True)
AVERAGE = Column("average", "AVG", "number", 12, "their average", optional=True, show="{:.1f}".format)
MIN = Column("min", "MIN", "integer", 12, "the smallest of them", optional=True)
MAX = Column("max", "MAX", "integer", 12, "the largest of them", optional=True)
MEASURED = (SUM, AVERAGE, MIN, MAX)
AMOUNTS = {"sum": (SUM,), "avg": (AVERAGE,), "min": (MIN,), "max": (MAX,), "stats": MEASURED}
COLUMNS = (
    Column("count", "COUNT", "count", 10, "how often this key occurred, or how many values there are"),
    *MEASURED,
    Column("key", "EVENT", "object", 0, "the values by their expressions", show=event, optional=True),
    Column("spec", meaning="the label, or the specification if it has none"),
    *(column for column in BUCKETS if column.name not in ("count", "sum")),
)


def specs_option(kind: Kind, *flags: str, help: str) -> Any:
    """A field for specs of one kind. The command line has one list for all of them, in the order of their options."""
    return option(
        *flags,
        type=lambda text: (text, kind),
        action="append",
        dest="specs",
        default=(),
        metavar="SPEC",
        help=help,
    )


class Options(ToolOptions):
    """Options of `usdtkit argdist`."""

    specs: tuple[tuple[str, Kind], ...] = specs_option("count", "-C", "--count", help="counts by one or several values")
    histograms: tuple[tuple[str, Kind], ...] = specs_option(
        *("hist", "-H", "--histogram"), help="a histogram of the last value, by those before it"
    )
    sums: tuple[tuple[str, Kind], ...] = specs_option(
        *("sum", "-S", "--sum"), help="the sum of the last value, by those before it"
    )
    averages: tuple[tuple[str, Kind], ...] = specs_option("avg", "--avg", help="its average")
    minima: tuple[tuple[str, Kind], ...] = specs_option("min", "--min", help="the smallest of it")
    maxima: tuple[tuple[str, Kind], ...] = specs_option("max", "--max", help="the largest of it")
    statistics: tuple[tuple[str, Kind], ...] = specs_option("stats", "--stats", help="all of these")
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
        "-T", "--top", type=positive, default=None, metavar="N", help="show only the N highest counts or amounts"
    )


def trace(session: Session, options: Options) -> Summaries:
    """Count, sum up, and show the results of each interval."""
    groups = (options.specs, options.histograms, options.sums, options.averages, options.minima, options.maxima)
    specs = next(filter(None, (*groups, options.statistics)), ())
    if not specs:
        raise UsageError("nothing to count", hint="-C SPEC or -H SPEC; usdtkit argdist -h shows examples")
    setup, cumulative = Setup(session, options.string_size), options.cumulative
    distributed = [distribute(setup, text, kind, linear=options.linear, cumulative=cumulative) for text, kind in specs]

    def summarise() -> Iterator[Block]:
        for spec in distributed:
            results = spec.read(cumulative=cumulative)[-(options.top or 0) :]
            if spec.kind == "hist":
                for key, values in results:
                    yield Histogram(values, spec.value, {"spec": spec.title} | ({"key": key} if key else {}))
            else:
                yield Table((row(spec, key, result) for key, result in results), title=spec.title)

    left_out = {*MEASURED} - {column for spec in distributed for column in AMOUNTS.get(spec.kind, ())}
    columns = [column for column in COLUMNS if column not in left_out]
    return Summaries(session, columns, summarise)


def row(spec: Distributed, key: Mapping[str, Any], result: Any) -> Mapping[str, Any]:
    """A row of counts, or of the statistics of a value."""
    if spec.kind == "count":
        return {"spec": spec.title, "key": key, "count": result}
    amounts = {column.name: getattr(result, column.name) for column in AMOUNTS[spec.kind]}
    return {"spec": spec.title, "key": key, "value": spec.value, "count": result.count, **amounts}
