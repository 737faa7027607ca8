"""Show the HTTP requests that Node.js serves: method, status, latency, URL.

A line appears when the head of the answer is written; the latency is from the arrival of the URL to there. Requests are
found in Node's parser (llhttp), answers at the socket or, of HTTPS, before they are encrypted: Node carries no probes
since version 19. Without -p or -c it traces every node that runs here. What follows a "?" in a URL is somebody's data
and shown with --raw-text only. HTTP/2 has another parser and is not seen.

examples:
  usdtkit nodehttp
  usdtkit nodehttp -p 1234 -m 100          answered after 100 ms or later
  usdtkit nodehttp --raw-text --json
"""

import argparse

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import follow, new_session, running
from usdtkit.cli.values import milliseconds
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column, Report, note
from usdtkit.providers import node
from usdtkit.signatures.node import PROGRAMS
from usdtkit.trace import ms

TOPIC = "languages"
VARIANTS = ("-p 1",)

COLUMNS = [
    *(TIME, PID, LATENCY_MS),
    *(Column("STATUS", "status", 6), Column("METHOD", "method", 8), Column("URL", "url", 0)),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit nodehttp`."""
    parser.add_argument(
        "-m", "--min-ms", type=milliseconds, default=0.0, metavar="MS", help="only what takes this long"
    )
    parser.add_argument("--raw-text", action="store_true", help="URLs with their query (?name=value)")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    requests = node.Requests(min_ns=ms(options.min_ms), with_query=options.raw_text)

    def finish(report: Report) -> None:
        if requests.unmatched:
            note(f"{requests.unmatched:,} requests or answers without their counterpart")

    with new_session(options, pids=running(options, *PROGRAMS)) as session:
        node.requests(session).emit()
        return follow(session, options, "nodehttp", COLUMNS, describe=requests.describe, finish=finish)
