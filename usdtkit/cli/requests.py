"""Requests and answers of HTTP connections, as events from a parser and from writes → one row for each answer.

Input: the events of `tools.nodehttp`. Output: rows for a `Report`. Answers come in the order of the requests; what has
no counterpart is counted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from usdtkit.output.report import Report, note
from usdtkit.signatures import node


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
            waiting = self._open.pop(stream, deque())
            asked = waiting.popleft() if waiting else None
            if waiting:  # so that nothing is kept of connections that have gone
                self._open[stream] = waiting
            return self._answered(event, asked)
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
