"""The Chrome trace event format, which speedscope, Perfetto and chrome://tracing open.

Input: rows of calls, with `time_ns`, `pid` and `tid`. A row with a phase begins or ends a call; a row with a latency
is a whole call. Output: a JSON array. At every moment it is complete except for its last bracket, which these readers
do not need.
"""

from __future__ import annotations

import json
from typing import Any

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

    def begin(self, schema: Schema) -> None:
        super().begin(schema)
        names = {column.name for column in schema.columns}
        if "time_ns" not in names or not (schema.with_role("phase") or "latency_ns" in names):
            raise UsageError(f"usdtkit {schema.name} shows no calls with these options", hint="--json, or a table")

    def row(self, row: Row) -> None:
        phase = self.schema.with_role("phase")
        named = self.schema.with_role("name")
        name = row[named.name] if named else next((row[name] for name in NAMES if name in row), self.schema.name)
        event: dict[str, Any] = {"name": show(name), "pid": row["pid"], "tid": row["tid"]}
        if phase is not None:
            event |= {"ph": PHASES[row[phase.name]], "ts": row["time_ns"] / 1e3}
        else:
            latency = row["latency_ns"]
            event |= {"ph": "X", "ts": (row["time_ns"] - latency) / 1e3, "dur": latency / 1e3}
        self.stream.write(self._before + json.dumps(event))
        self._before = ",\n"

    def histogram(self, histogram: Histogram) -> None:
        raise UsageError("a histogram is no sequence of calls", hint="--json, or a table")

    def close(self) -> None:
        self.stream.write("[]\n" if self._before == "[" else "]\n")
        self.stream.flush()


SINK = ChromeSink
