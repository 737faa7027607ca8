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
from usdtkit.cli.requests import Requests
from usdtkit.cli.run import first_found, follow, new_session, running
from usdtkit.cli.values import milliseconds
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column
from usdtkit.signatures import node
from usdtkit.trace import Session, arg, cstr, deref, ms

TOPIC = "languages"
VARIANTS = ("-p 1",)

URL_SIZE = 512
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
    with new_session(options, pids=running(options, *node.PROGRAMS)) as session:
        first_found(node.LIBRARIES, lambda library: trace(session, library))
        requests = Requests(ms(options.min_ms), options.raw_text)
        return follow(session, options, "nodehttp", COLUMNS, describe=requests.describe, finish=requests.finish)


def trace(session: Session, library: str) -> None:
    """Events of connections, requests and answers of Node in this program or library."""
    ids = {"parser": arg(1), "stream": deref(1, node.PARSER_STREAM)}
    session.uprobe(library, node.PARSER_INIT).emit(parser=arg(1))
    session.uprobe(library, node.ON_URL).emit(**ids, piece=cstr(2, URL_SIZE, length=arg(3) - arg(2)))
    session.uprobe(library, node.ON_URL_COMPLETE).emit(**ids, method=deref(1, node.PARSER_METHOD, "u8"))
    for function, buffers in ((node.WRITE, deref(2)), (node.WRITE_TLS, arg(3))):
        head = cstr(deref(buffers), len("HTTP/1.1 200"))
        session.uprobe(library, function).where(head.startswith("HTTP/1.")).emit(stream=arg(1), head=head)
