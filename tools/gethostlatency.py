"""Show how long host name look-ups take, and what they returned.

Traces getaddrinfo, gethostbyname, gethostbyname2, gethostbyaddr, their reentrant forms and getnameinfo in every C
library that is mapped, or with -p that the process maps, also where it was linked into the program. Where the C library
implements one of them by another (glibc's gethostbyname by gethostbyname_r), both are shown, the inner one first. A
line appears when a look-up returns.

examples:
  usdtkit gethostlatency
  usdtkit gethostlatency -p 1234 -m 10      look-ups of 10 ms or longer
  usdtkit gethostlatency --json
"""

import argparse

from usdtkit.cli.arguments import add_session_options, milliseconds
from usdtkit.cli.run import follow, new_session
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column
from usdtkit.providers import resolver
from usdtkit.trace import latency, ms

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-m 1")

COLUMNS = [
    *(TIME, PID, COMM, LATENCY_MS),
    *(Column("FUNCTION", "function", 16), Column("RESULT", "result", 10), Column("HOST", "host", 0)),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit gethostlatency`."""
    parser.add_argument("-m", "--min-ms", type=milliseconds, default=0.0, metavar="MS", help="only look-ups this long")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:
        lookups = resolver.lookups(session)
        if options.min_ms:
            lookups = lookups.where(latency >= ms(options.min_ms))
        lookups.emit()
        return follow(session, options, "gethostlatency", COLUMNS, describe=resolver.describe)
