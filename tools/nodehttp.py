"""Show the HTTP requests that Node.js serves: method, status, latency, URL.

A line appears when the head of the answer is written; the latency is the time from the arrival of the URL to then. Node
carries no probes since version 19, so requests are found in its parser (llhttp), and answers at the socket or, with
HTTPS, before they are encrypted. Without -p or -c it traces every node, also those that start later. The part of a URL
after "?" is personal data, and only shown with --raw-text. HTTP/2 has another parser and is not seen.

examples:
  usdtkit nodehttp
  usdtkit nodehttp -p 1234 -m 100          answered after 100 ms or later
  usdtkit nodehttp --raw-text --json
"""

from collections.abc import Iterator

from usdtkit.cli.arguments import min_ms_option
from usdtkit.cli.options import ToolOptions, option
from usdtkit.providers import node
from usdtkit.records import replace
from usdtkit.results import LATENCY_MS, PID, TID, TIME, Column, Rows
from usdtkit.trace import Session, ms

TOPIC = "languages"
COLUMNS = (
    *(replace(TIME, meaning="when the head of the answer was written"), PID),
    replace(LATENCY_MS, meaning="the time from the end of the URL to the head of the answer"),
    Column("status", "STATUS", "integer", 6, "the status of the answer", left=True),
    Column("method", "METHOD", width=8, meaning="the method, or the number of one that is not known"),
    Column("url", "URL", "text", meaning='the URL as it was sent; without --raw-text its query is "?…"'),
    replace(TID, heading=""),
)


class Options(ToolOptions):
    """Options of `usdtkit nodehttp`."""

    min_ms: float = min_ms_option("show requests that were answered after MS ms or later")
    raw_text: bool = option("--raw-text", default=False, help="show URLs with their query (?name=value)")


def trace(session: Session, options: Options) -> Rows:
    """Trace requests; a row when one is answered."""
    node.requests(session).emit()
    requests = node.Requests(min_ns=ms(options.min_ms), with_query=options.raw_text)

    def notes() -> Iterator[str]:
        if requests.unmatched:
            yield f"{requests.unmatched:,} requests or answers without their counterpart"

    return Rows(session, COLUMNS, requests.describe, notes=notes)
