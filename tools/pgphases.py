"""Show where PostgreSQL's statements spend their time: parsing, rewriting, planning or executing.

Uses the probes query__parse, query__rewrite, query__plan and query__execute of the server, and the statements that
backends report. One line for each shape of statement, the costliest first: how often it was executed, and the time of
each phase in all. A prepared statement is parsed once; statements within functions are part of the execution of the one
that calls them. Literals are shown as "?", unless --raw-text.

examples:
  usdtkit pgphases -i 5
  usdtkit pgphases --top 5 -d 60            the five costliest statements of a minute
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.databases import POSTGRES, Current, add_query_options, tracing_servers
from usdtkit.cli.run import add_interval_options, add_session_options, follow_intervals, positive
from usdtkit.output.report import Column, Report, milliseconds
from usdtkit.providers.postgresql import PHASES
from usdtkit.trace import usdt

TOPIC = "databases"
VARIANTS = ("-x postgres",)

MAX_STATEMENTS, OTHERS = 10_000, "(all others)"
COLUMNS = [
    Column("COUNT", "count", 7, right=True),
    *(Column(f"{name.upper()}(ms)", f"{name}_ns", 11, milliseconds, right=True) for name in PHASES),
    Column("STATEMENT", "statement", 0),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit pgphases`."""
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="so many statements (20)")
    add_query_options(parser, threshold=False)
    add_interval_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Summarise until told to stop."""
    with tracing_servers(options, POSTGRES) as (session, programs):
        for program in programs:
            Current.trace(session, program)
            for phase in PHASES:
                ends = (usdt(f"postgresql:query__{phase}__{end}", program) for end in ("start", "done"))
                session.pair(*ends).emit("latency")
        phases = Phases(Current(raw=options.raw_text))

        def write(report: Report) -> None:
            report.block(list(phases.flush())[: options.top])

        return follow_intervals(session, options, "pgphases", COLUMNS, write, take=phases.take)


class Phases:
    """The time of each phase by statement, since the last look; of more than MAX_STATEMENTS, the later ones are one."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._open: dict[int, list[Any]] = defaultdict(list)
        self._totals: dict[str, dict[str, int]] = {}

    def take(self, event: Any) -> None:
        """Add the end of a phase, or see what a backend is at from now on."""
        if event.probe != Current.PROBE:
            # What began since this one did was within it.
            start = event.time_ns - event.latency_ns
            own = self._open[event.pid]
            own[:] = [phase for phase in own if phase.time_ns <= start]
            own.append(event)
            return
        for phase in self._open.pop(event.pid, ()):
            self._add(self._current.of(phase) or "?", phase)
        self._current.take(event)

    def _add(self, statement: str, event: Any) -> None:
        if statement not in self._totals and len(self._totals) >= MAX_STATEMENTS:
            statement = OTHERS
        total = self._totals.setdefault(statement, dict.fromkeys(("count", *PHASES), 0))
        phase = event.probe.split("__")[1]
        total[phase] += event.latency_ns
        total["count"] += phase == "execute"

    def flush(self) -> Iterator[Mapping[str, Any]]:
        """Rows, the costliest statement first; then begin anew."""
        totals, self._totals = self._totals, {}
        for statement, total in sorted(totals.items(), key=lambda item: -sum(item[1][phase] for phase in PHASES)):
            times = {f"{phase}_ns": total[phase] for phase in PHASES}
            yield {"count": total["count"], **times, "statement": statement}
