"""The Chrome trace event format, which speedscope, Perfetto and chrome://tracing open.

Input: rows of calls, with `time_ns`, `pid` and `tid`. A row with a phase begins or ends a call; a row with a latency
is a whole call. Output: a JSON array. At every moment it is complete except for its last bracket, which these readers
do not need. The end of a call that began before the trace is left out, because each end needs a beginning.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from usdtkit.errors import UsageError
from usdtkit.output.sink import Sink
from usdtkit.output.text import show
from usdtkit.results.blocks import Histogram, Row
from usdtkit.results.columns import Schema

NAMES = ("method", "function", "call", "probe")
PHASES = {"->": "B", "<-": "E"}


class ChromeSink(Sink):
    """Writes one trace event for each row."""

    _before = "["

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._open: dict[tuple[int, int], list[str]] = {}  # the names of the open calls by process and thread

    def check(self, schema: Schema) -> None:
        names = {column.name for column in schema.columns}
        if "time_ns" not in names or not (schema.with_role("phase") or "latency_ns" in names):
            raise UsageError(
                f"usdtkit {schema.name} has no calls to write with these options",
                hint="use --json, or leave out --format for a table",
            )

    def row(self, row: Row) -> None:
        phase = self.schema.with_role("phase")
        named = self.schema.with_role("name")
        name = row[named.name] if named else next((row[name] for name in NAMES if name in row), self.schema.name)
        event: dict[str, Any] = {"name": show(name), "pid": row["pid"], "tid": row["tid"]}
        if phase is not None:
            if not self._is_balanced((row["pid"], row["tid"]), name, row[phase.name]):
                return
            event |= {"ph": PHASES[row[phase.name]], "ts": row["time_ns"] / 1e3}
        else:
            latency = row["latency_ns"]
            start = row["time_ns"] if self.schema.with_role("start") else row["time_ns"] - latency
            event |= {"ph": "X", "ts": start / 1e3, "dur": latency / 1e3}
        self.stream.write(self._before + json.dumps(event))
        self._before = ",\n"

    def _is_balanced(self, thread: tuple[int, int], name: str, phase: str) -> bool:
        """Note that a call begins or ends. False for the end of a call whose beginning was not seen."""
        calls = self._open.setdefault(thread, [])
        if phase == "->":
            calls.append(name)
            return True
        if not calls or calls[-1] != name:
            return False
        calls.pop()
        return True

    def histogram(self, histogram: Histogram) -> None:
        raise UsageError(
            "a histogram cannot be written as a sequence of calls", hint="use --json, or leave out --format for a table"
        )

    def close(self) -> None:
        self.stream.write("[]\n" if self._before == "[" else "]\n")
        self.stream.flush()


SINK = ChromeSink
