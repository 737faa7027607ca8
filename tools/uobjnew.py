"""Count the objects that a program makes, by type: Java, Python, Ruby, Tcl, and blocks that C programs allocate.

Java must be started with -XX:+DTraceAllocProbes, and Python 3.13 or later as `usdtkit run --objects`. Of C programs the
blocks of malloc are counted by their size. Ruby gives the bytes of strings, and the number of elements for which an
array or a hash is made. The sizes that JDK 17 gives are wrong, so Java has none.

examples:
  usdtkit uobjnew 1234
  usdtkit uobjnew -S 10 1234 5       print every 5 seconds the ten types with the most bytes
  usdtkit uobjnew -l c 1234
"""

from collections.abc import Iterator

from usdtkit.cli import runtimeoptions
from usdtkit.cli.arguments import Spelling, process_argument
from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import positive
from usdtkit.providers import runtimes
from usdtkit.results import Column, Summaries, Table
from usdtkit.trace import Session

TOPIC = "languages"
LANGUAGES = ("c", "java", "python", "ruby", "tcl")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
SPELLING = Spelling(shows_program=True)
COLUMNS = (
    Column("type", "NAME/TYPE", width=46, meaning="the type of the objects"),
    Column("allocations", "# ALLOCS", "count", 12, "how many were made in the interval"),
    Column(
        *("bytes", "# BYTES", "count", 14, "their size together, or null if the runtime does not give it"),
        nullable=True,
    ),
)


class Options(ToolOptions):
    """Options of `usdtkit uobjnew`."""

    process: int | str | None = process_argument()
    interval: float | None = runtimeoptions.interval_argument()
    language: str | None = runtimeoptions.language_option(*LANGUAGES)
    top_count: int = option(
        *("-C", "--top-count"), type=positive, default=0, metavar="N", help="only the N types with the most objects"
    )
    top_size: int = option(
        *("-S", "--top-size"), type=positive, default=0, metavar="N", help="only the N types with the most bytes"
    )


processes = runtimeoptions.processes


def trace(session: Session, options: Options) -> Summaries:
    """Count objects; the types of each interval, those with the most last."""
    objects = runtimes.of(session, options.language, among=LANGUAGES).objects()

    def summarise() -> Iterator[Table]:
        made = sorted(objects.delta(), key=lambda total: (total.number, total.type))
        if options.top_size:
            made.sort(key=lambda total: total.bytes or 0)
        yield Table(
            {"type": total.type, "allocations": total.number, "bytes": total.bytes}
            for total in made[-(options.top_size or options.top_count) :]
        )

    return Summaries(session, COLUMNS, summarise)
