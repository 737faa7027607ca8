"""Count the objects that a program makes, by type: Java, Python, Ruby, Tcl, and what C programs allocate.

Java needs -XX:+DTraceAllocProbes, Python `usdtkit run --objects` and CPython 3.13. Of C: blocks of malloc, by their
size. Ruby tells the bytes of strings, and how many elements an array or a hash is made for; the JVM tells sizes that
are wrong (JDK 17), and they are left out.

examples:
  usdtkit uobjnew 1234
  usdtkit uobjnew -S 10 1234 5       every 5 seconds the ten types with most bytes
  usdtkit uobjnew -l c 1234
"""

import argparse

from usdtkit.cli.languages import add_language_options, add_trailing_interval, tracing
from usdtkit.cli.run import follow_intervals
from usdtkit.cli.values import positive
from usdtkit.output.report import Column, Report

TOPIC = "languages"

LANGUAGES = ("c", "java", "python", "ruby", "tcl")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
COLUMNS = [
    Column("NAME/TYPE", "type", 46),
    Column("# ALLOCS", "allocations", 12, right=True),
    Column("# BYTES", "bytes", 14, right=True),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit uobjnew`."""
    parser.add_argument("-C", "--top-count", type=positive, metavar="N", help="the N with most allocations")
    parser.add_argument("-S", "--top-size", type=positive, metavar="N", help="the N with most bytes")
    add_language_options(parser, *LANGUAGES)
    add_trailing_interval(parser)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    with tracing(options) as runtime:
        objects = runtime.objects()

        def write(report: Report) -> None:
            rows = [{"type": made.type, "allocations": made.number, "bytes": made.bytes} for made in objects.delta()]
            first, top = ("bytes", options.top_size) if options.top_size else ("allocations", options.top_count)
            rows.sort(key=lambda row: (row[first] or 0, row["allocations"], row["type"]))
            report.block(rows[-(top or 0) :])

        return follow_intervals(runtime.session, options, "uobjnew", COLUMNS, write)
