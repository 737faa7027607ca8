"""Show how long host name look-ups take, and what they returned.

Traces getaddrinfo, gethostbyname, gethostbyname2, gethostbyaddr, their reentrant forms, and getnameinfo. They are
traced in every C library that a process maps and in programs that are linked statically; with -p, in the files of that
process. A line appears when a look-up returns. If the C library implements one function by another, as glibc implements
gethostbyname by gethostbyname_r, both calls are shown, and the inner one comes first.

examples:
  usdtkit gethostlatency
  usdtkit gethostlatency -p 1234 -m 10      look-ups of 10 ms or longer
  usdtkit gethostlatency --pycaller         which line of Python asked
  usdtkit gethostlatency --json
"""

from usdtkit.cli.arguments import CallerOptions, min_ms_option
from usdtkit.providers import resolver
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, PYCALLER, TID, TIME, Column, Rows
from usdtkit.trace import Session, latency, ms

TOPIC = "names, logins and secrets"
VARIANTS = ("", "-m 1")
COLUMNS = (
    *(TIME, PID, COMM, LATENCY_MS, replace(TID, heading=""), PYCALLER),
    Column("function", "FUNCTION", width=16, meaning="the function that was called"),
    Column("result", "RESULT", width=10, meaning="ok, not found, failed, EAI_…, or an errno"),
    Column("host", "HOST", "text", meaning="the name or address that was asked for"),
    Column("returned", type="integer", meaning="the value that the function returned"),
)


class Options(CallerOptions):
    """Options of `usdtkit gethostlatency`."""

    min_ms: float = min_ms_option("show look-ups of MS ms or more")


def trace(session: Session, options: Options) -> Rows:
    """Trace look-ups; a row when one returns."""
    lookups = resolver.lookups(session)
    if options.min_ms:
        lookups = lookups.where(latency >= ms(options.min_ms))
    if options.pycaller:
        lookups = lookups.derive("pycaller")
    lookups.emit()
    columns = [column for column in COLUMNS if options.pycaller or column is not PYCALLER]
    return Rows(session, columns, resolver.describe)
