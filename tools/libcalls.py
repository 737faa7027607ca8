"""Count calls of a library's functions: how many, how long, and which errors.

FUNCTION is a name or a glob, of the C library or of the one that -l names. Errors are told by what each function
returns: an error's number (pthread_…, posix_…), or -1 or NULL. For those the name is the errno that the thread asks for
next, which C and most languages do right after a failure; "-1" or "NULL" are those after which it did not ask.

examples:
  usdtkit libcalls open openat read -p 1234
  usdtkit libcalls 'pthread_mutex_*' -i 1           every second
  usdtkit libcalls -l ssl SSL_read SSL_write
"""

import argparse

from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options
from usdtkit.cli.run import follow_intervals, narrow, new_session
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.providers.libc import LibraryCalls
from usdtkit.records import asdict

TOPIC = "any function or probe"
VARIANTS = ("open", "malloc", "pthread_create", "getaddrinfo", "free")

COLUMNS = [
    *(Column("COUNT", "count", 9, right=True), Column("TOTAL(ms)", "total_ns", 11, milliseconds, right=True)),
    *(Column("AVG(us)", "average_ns", 9, lambda ns: f"{ns / 1e3:.2f}", right=True), Column("FUNCTION", "function", 20)),
    Column("ERRORS", "errors", 0, lambda errors: " ".join(f"{name}:{number}" for name, number in errors.items())),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit libcalls`."""
    parser.add_argument("function", nargs="+", metavar="FUNCTION", help="names, globs allowed")
    parser.add_argument("-l", "--library", default="c", metavar="LIB", help="a library, command or file (c)")
    add_filter_options(parser)
    add_interval_options(parser)
    add_session_options(parser, chosen=True)


def run(options: argparse.Namespace) -> int:
    """Count until told to stop."""
    with new_session(options) as session:
        narrow(session, options)
        calls = LibraryCalls(session, options.function, options.library)

        def write(report: Report) -> None:
            report.block(asdict(summary) for summary in calls.summarise())

        return follow_intervals(session, options, "libcalls", COLUMNS, write, take=calls.consume)
