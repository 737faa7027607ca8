"""Show how long TLS handshakes take, and how they end.

Traces the handshakes of OpenSSL, GnuTLS and NSS, in the system's libraries and in whatever runs now and has them in it;
with -p in the files of that process. Where a socket does not block, a handshake is several calls: its latency is from
the first call to the return of the last one, and BUSY is what passed within the calls: cryptography and, where the
socket blocks, waiting for the peer.

examples:
  usdtkit ssllatency
  usdtkit ssllatency -p 181 -m 100          handshakes of 100 ms or longer
  usdtkit ssllatency -H -i 10               a histogram every ten seconds, for each result
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_filter_options, add_interval_options, add_session_options
from usdtkit.cli.run import follow, follow_intervals, narrow, new_session
from usdtkit.cli.tlsoptions import add_library_options, chosen_libraries
from usdtkit.cli.values import milliseconds
from usdtkit.output import report
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column, Report
from usdtkit.providers import tls
from usdtkit.trace import Distribution, ms

TOPIC = "names, logins and secrets"

COLUMNS = [
    *(TIME, PID, COMM, LATENCY_MS, Column("BUSY(ms)", "busy_ns", 9, report.milliseconds, right=True)),
    *(Column("CALLS", "calls", 5, right=True), Column("LIBRARY", "library", 7), Column("RESULT", "result", 0)),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit ssllatency`."""
    parser.add_argument("-m", "--min-ms", type=milliseconds, default=0.0, metavar="MS", help="only what took so long")
    parser.add_argument("-H", "--histogram", action="store_true", help="a histogram for each result, not a line each")
    add_library_options(parser)
    add_filter_options(parser, uid="-u")
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    handshakes = tls.Handshakes()
    taken: dict[str, Distribution] = defaultdict(Distribution)

    def describe(event: Any) -> Mapping[str, Any] | None:
        row = handshakes.describe(event)
        return row if row and row["latency_ns"] >= ms(options.min_ms) else None

    def take(event: Any) -> None:
        if row := describe(event):
            taken[row["result"]].add(row["latency_ns"])

    def write(report: Report) -> None:
        for result, distribution in sorted(taken.items()):
            report.histogram(distribution, result=result)
        taken.clear()

    with new_session(options) as session:
        narrow(session, options)
        tls.handshakes(session, *chosen_libraries(options)).emit()
        if options.histogram or options.interval:
            return follow_intervals(session, options, "ssllatency", (), write, take=take)
        return follow(session, options, "ssllatency", COLUMNS, describe=describe)
