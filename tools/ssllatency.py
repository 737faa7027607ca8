"""Show how long TLS handshakes take, and how they end.

Traces the handshakes of OpenSSL, GnuTLS and NSS, in the system's libraries and in whatever runs now and has a library
in itself; with -p, in the files of that process. If a socket does not block, a handshake takes several calls. Its
latency is the time from the first call to the return of the last one, and BUSY is the time within the calls, which
goes to cryptography and, if the socket blocks, to waiting for the peer.

examples:
  usdtkit ssllatency
  usdtkit ssllatency -p 181 -m 100          handshakes of 100 ms or longer
  usdtkit ssllatency -H -i 10               a histogram every ten seconds, for each result
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from usdtkit.cli.arguments import IntervalOptions, Spelling, min_ms_option
from usdtkit.cli.options import option
from usdtkit.cli.tlsoptions import TlsLibraries
from usdtkit.providers import tls
from usdtkit.records import replace
from usdtkit.results import BUCKETS, COMM, LATENCY_MS, PID, TID, TIME, UID, Column, Histogram, Row, Rows, Summaries
from usdtkit.trace import Distribution, Session, ms

TOPIC = "names, logins and secrets"
SPELLING = Spelling(filters={"uid": "-u"})
RESULT = Column("result", "RESULT", meaning='"ok", "not finished", or "error" and the number that the library returned')
HANDSHAKE = (
    *(TIME, PID, COMM, replace(LATENCY_MS, meaning="the time from the first call to the return of the last")),
    Column("busy_ns", "BUSY(ms)", "duration", 9, "the time within the calls", unit="ms"),
    Column("calls", "CALLS", "count", 5, "how many calls the handshake took"),
    Column("library", "LIBRARY", width=7, meaning="the library", values=tls.NAMES),
    *(RESULT, replace(TID, heading=""), replace(UID, heading="")),
)
HISTOGRAM = (RESULT, *BUCKETS)
COLUMNS = (
    *(column if column in (TIME, RESULT) else replace(column, optional=True) for column in HANDSHAKE),
    *BUCKETS,
)


class Options(IntervalOptions, TlsLibraries):
    """Options of `usdtkit ssllatency`."""

    min_ms: float = min_ms_option("show handshakes of MS ms or more")
    histogram: bool = option(
        "-H", "--histogram", default=False, help="show a histogram for each result instead of a line for each handshake"
    )


def trace(session: Session, options: Options) -> Rows | Summaries:
    """Trace handshakes; a row when one ends, or histograms of each interval."""
    tls.handshakes(session, options.libraries, options.extra_lib).emit()
    handshakes = tls.Handshakes()
    distributions: dict[str, Distribution] = defaultdict(Distribution)

    def describe(event: Any) -> Row | None:
        row = handshakes.describe(event)
        return row if row is not None and row["latency_ns"] >= ms(options.min_ms) else None

    def take(event: Any) -> None:
        if row := describe(event):
            distributions[row["result"]].add(row["latency_ns"])

    def summarise() -> Iterator[Histogram]:
        for result, distribution in sorted(distributions.items()):
            yield Histogram(distribution, labels={"result": result})
        distributions.clear()

    if options.histogram or options.interval:
        return Summaries(session, HISTOGRAM, summarise, take=take)
    return Rows(session, HANDSHAKE, describe)
