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
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.run import add_session_options, first_found, follow, milliseconds, new_session, running
from usdtkit.output.report import LATENCY_MS, PID, TIME, Column, Report, note
from usdtkit.providers import node
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


class Requests:
    """What has been asked and not been answered yet, by connection; answers come in the order of the requests."""

    def __init__(self, min_ns: int, raw_text: bool) -> None:
        self._min_ns, self._raw_text = min_ns, raw_text
        self._pieces: dict[Any, list[str]] = defaultdict(list)
        self._open: dict[Any, deque[tuple[Any, str]]] = defaultdict(deque)
        self._streams: dict[Any, Any] = {}  # the last of each parser
        self._unmatched = 0

    def describe(self, event: Any) -> Mapping[str, Any] | None:
        """A row of an answer; None of all other events."""
        parser, stream = (event.pid, getattr(event, "parser", 0)), (event.pid, getattr(event, "stream", 0))
        if event.probe == node.PARSER_INIT:  # what its last connection left open is never answered
            self._pieces.pop(parser, None)
            self._unmatched += len(self._open.pop(self._streams.pop(parser, None), ()))
        elif event.probe == node.ON_URL:
            self._pieces[parser].append(event.piece or "")
        elif event.probe == node.ON_URL_COMPLETE:
            self._streams[parser] = stream
            pieces = self._pieces.pop(parser, [""])
            url = type(pieces[-1])("".join(pieces))  # which says whether it was cut
            self._open[stream].append((event, url))
        elif event.head[9:10] != "1":  # not yet: 100 Continue, 103 Early Hints
            return self._answered(event, self._open[stream].popleft() if self._open.get(stream) else None)
        return None

    def _answered(self, event: Any, asked: tuple[Any, str] | None) -> Mapping[str, Any] | None:
        if asked is None:  # before the trace began
            self._unmatched += 1
            return None
        request, url = asked
        latency = event.time_ns - request.time_ns
        if latency < self._min_ns:
            return None
        path, query, _ = url.partition("?")
        shown = url if self._raw_text or not query else f"{path}?…"
        row = {name: getattr(event, name) for name in ("time_ns", "pid", "tid")}
        method = node.METHODS[request.method] if request.method < len(node.METHODS) else str(request.method)
        return {**row, "latency_ns": latency, "status": int(event.head[9:12]), "method": method, "url": shown}

    def finish(self, report: Report) -> None:
        """Say how many requests and answers had no counterpart."""
        left = self._unmatched + sum(map(len, self._open.values()))
        if left:
            note(f"{left:,} requests or answers without their counterpart")
