"""Node.js: a session in, the HTTP requests that Node serves with the status and the time of their answers out.

    from usdtkit import trace
    from usdtkit.providers import node

    with trace.Session(pid=4711) as session:
        node.requests(session).emit()
        requests = node.Requests()
        row = next(filter(None, map(requests.describe, session)))
        print(row["method"], row["url"], row["status"])

Node carries no probes since version 19. Requests are found in its parser, llhttp, and answers where they are written to
the socket or, with TLS, before they are encrypted. Both know the stream of their connection. Uses `usdtkit.trace`.

Tried on Node 18 (Debian's libnode.so.108) and 20. Sources: llhttp's `api.h`, and the order of members in Node's
`src/node_http_parser.cc` and `src/stream_base.h`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from usdtkit.providers.alternatives import first_found
from usdtkit.providers.servers import running
from usdtkit.records import replace
from usdtkit.signatures.node import LIBRARIES, PATHS, PROGRAMS
from usdtkit.trace import Session, Sought, Source, Sources, arg, cstr, deref, uprobe

URL_SIZE = 512
# llhttp's functions, whose first argument is the parser: at the start of a connection; with (begin, end) of each piece
# of a request's URL, of which there are several only if the network split it; and behind the last piece.
PARSER_INIT, ON_URL, ON_URL_COMPLETE = "llhttp_init", "llhttp__on_url", "llhttp__on_url_complete"
PARSER_METHOD = 73  # where llhttp_t.method is, one byte
METHODS = (
    *("DELETE", "GET", "HEAD", "POST", "PUT", "CONNECT", "OPTIONS", "TRACE", "COPY", "LOCK", "MKCOL", "MOVE"),
    *("PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND", "UNBIND", "ACL", "REPORT", "MKACTIVITY"),
    *("CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PATCH", "PURGE", "MKCALENDAR"),
    *("LINK", "UNLINK", "SOURCE"),
)
# Node's Parser has its llhttp_t behind its StreamListener, whose last two members are the stream and another listener.
PARSER_STREAM = -16
# The functions that write to a stream: (this, uv_buf_t **, size_t *) to a socket, and (this, request, uv_buf_t *, …)
# under TLS. They are virtual and called through the stream's base class, so that `this` is the stream of PARSER_STREAM.
# Their names are mangled, with a glob for what differs between versions.
WRITE = "_ZThn*_N4node15LibuvStreamWrap10DoTryWriteEPP8uv_buf_tPm"
WRITE_TLS = "_ZThn*_N4node6crypto7TLSWrap7DoWriteEPNS_9WriteWrapEP8uv_buf_tmP11uv_stream_s"


def servers() -> list[int]:
    """The process ids of the Node programs that run here. NotFoundError, PrivilegeError."""
    return running(*PROGRAMS)


def requests(session: Session) -> Sources[Source]:
    """The steps of the requests that Node serves; `Requests` makes rows of the events that `emit()` sends of them.

    Finds Node's code in the program, or in a library of its own. NotFoundError.
    """
    return first_found(LIBRARIES, lambda library: _requests(session, library))


def _requests(session: Session, library: str) -> Sources[Source]:
    stream = deref(1, PARSER_STREAM)
    beginnings, pieces, urls, writes, encrypted = (
        _entries(session, library, function) for function in (PARSER_INIT, ON_URL, ON_URL_COMPLETE, WRITE, WRITE_TLS)
    )
    answers = [_answers(writes, deref(2)), _answers(encrypted, arg(3))]
    return Sources(
        beginnings.derive(parser=arg(1)),
        pieces.derive(parser=arg(1), stream=stream, piece=cstr(2, URL_SIZE, length=arg(3) - arg(2))),
        urls.derive(parser=arg(1), stream=stream, method=deref(1, PARSER_METHOD, "u8")),
        *answers,
    )


def _entries(session: Session, library: str, function: str) -> Source:
    """The entries of a function in what runs, and in other versions and copies of Node that start later."""
    spec = uprobe(library, function)
    found = session.resolve(spec)
    return session.source(replace(found, sought=Sought([spec, *(uprobe(path, function) for path in PATHS)])))


def _answers(writes: Source, buffers: Any) -> Source:
    """Those of the writes with which an answer begins; `buffers` is the address of the first of them."""
    head = cstr(deref(buffers), len("HTTP/1.1 200"))
    return writes.where(head.startswith("HTTP/1.")).derive(stream=arg(1), head=head)


class Requests:
    """Makes rows of the events of `requests`, by keeping account of the requests that have not been answered yet.

    The answers of a connection come in the order of its requests. Answers that came in less than `min_ns` nanoseconds
    are left out. `with_query` shows what follows a "?" in a URL.
    """

    def __init__(self, *, min_ns: int = 0, with_query: bool = False) -> None:
        self._min_ns, self._with_query = min_ns, with_query
        self._pieces: dict[Any, list[str]] = defaultdict(list)
        self._open: dict[Any, deque[tuple[Any, str]]] = defaultdict(deque)
        self._streams: dict[Any, Any] = {}  # the last stream of each parser
        self._unmatched = 0

    @property
    def unmatched(self) -> int:
        """The number of requests without an answer, and of answers to requests from before the trace."""
        return self._unmatched + sum(map(len, self._open.values()))

    def describe(self, event: Any) -> Mapping[str, Any] | None:
        """The row of an answer, and None for all other events.

        Its values are `method`, `url`, `status`, and `latency_ns`, which is the time since the URL was complete.
        """
        parser, stream = (event.pid, getattr(event, "parser", 0)), (event.pid, getattr(event, "stream", 0))
        if event.probe == PARSER_INIT:  # the requests that its last connection left open will never be answered
            self._pieces.pop(parser, None)
            self._unmatched += len(self._open.pop(self._streams.pop(parser, None), ()))
        elif event.probe == ON_URL:
            self._pieces[parser].append(event.piece or "")
        elif event.probe == ON_URL_COMPLETE:
            self._streams[parser] = stream
            pieces = self._pieces.pop(parser, [""])
            url = type(pieces[-1])("".join(pieces))  # the type of a string says whether it was cut
            self._open[stream].append((event, url))
        elif event.head[9:10] != "1":  # 100 Continue and 103 Early Hints come before the answer
            waiting = self._open.pop(stream, deque())
            asked = waiting.popleft() if waiting else None
            if waiting:  # nothing is kept of a connection without open requests
                self._open[stream] = waiting
            return self._answered(event, asked)
        return None

    def _answered(self, event: Any, asked: tuple[Any, str] | None) -> Mapping[str, Any] | None:
        if asked is None:
            self._unmatched += 1
            return None
        request, url = asked
        latency = event.time_ns - request.time_ns
        if latency < self._min_ns:
            return None
        path, query, _ = url.partition("?")
        shown = url if self._with_query or not query else f"{path}?…"
        method = METHODS[request.method] if request.method < len(METHODS) else str(request.method)
        row = {"time_ns": event.time_ns, "pid": event.pid, "tid": event.tid, "latency_ns": latency}
        return {**row, "status": int(event.head[9:12]), "method": method, "url": shown}
