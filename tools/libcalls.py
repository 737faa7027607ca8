"""Count calls of a library's functions: how many, how long, and which errors.

FUNCTION is a name or a glob, of the C library or of the library that -l names. Whether a call failed is known from what
it returned: the number of an error (pthread_…, posix_…), or -1 or NULL. For -1 and NULL, the error is the errno that
the thread asks for next, as C and most languages do right after a failure. "-1" or "NULL" in place of a name stands for
failures after which the thread did not ask.

examples:
  usdtkit libcalls open openat read -p 1234
  usdtkit libcalls 'pthread_mutex_*' -i 1           every second
  usdtkit libcalls -l ssl SSL_read SSL_write
"""

from collections.abc import Iterator, Mapping

from usdtkit.cli.arguments import IntervalOptions, Spelling
from usdtkit.cli.options import option
from usdtkit.language.parser import parse_name
from usdtkit.providers.libc import LibraryCalls
from usdtkit.records import asdict
from usdtkit.results import Column, Summaries, Table
from usdtkit.trace import Session

TOPIC = "any function or probe"
VARIANTS = ("open", "malloc", "pthread_create", "getaddrinfo", "free")
SPELLING = Spelling(chosen=True, filters={})


def show_errors(errors: Mapping[str, int]) -> str:
    """The errors of a function as a table shows them: "ENOENT:13 EISDIR:2"."""
    return " ".join(f"{name}:{count}" for name, count in errors.items())


COLUMNS = (
    Column("count", "COUNT", "count", 9, "calls that returned"),
    Column("total_ns", "TOTAL(ms)", "duration", 11, "the time in all of these calls", unit="ms"),
    Column("average_ns", "AVG(us)", "duration", 9, "the average time of a call", unit="us"),
    Column("function", "FUNCTION", width=20, meaning="the function"),
    Column("errors", "ERRORS", "object", meaning="failed calls by the name of the error", show=show_errors),
)


class Options(IntervalOptions):
    """Options of `usdtkit libcalls`."""

    function: tuple[str, ...] = option(nargs="+", metavar="FUNCTION", help="names of functions; globs are allowed")
    library: str = option("-l", "--library", default="c", metavar="LIB", help="a library, command or file (c)")


def trace(session: Session, options: Options) -> Summaries:
    """Count, and show the functions of each interval; the one that took the most time comes first."""
    calls = LibraryCalls(session, [*map(parse_name, options.function)], options.library)

    def summarise() -> Iterator[Table]:
        yield Table(map(asdict, calls.summarise()))

    return Summaries(session, COLUMNS, summarise, take=calls.consume)
