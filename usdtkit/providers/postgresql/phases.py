"""Where PostgreSQL's statements spend their time: parsing, rewriting, planning or executing.

Input: a session. Output: rows with the time of each phase by statement. Uses the server's probes of these phases, and
the statements that backends report.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from usdtkit.providers.postgresql.backends import Program, Statements, programs
from usdtkit.providers.statements import bounded
from usdtkit.trace import Session, usdt

PHASES = ("parse", "rewrite", "plan", "execute")
"""The phases of a statement, in their order."""


class PhaseTimes:
    """The time of each phase by statement, since the last `flush`.

    A prepared statement is parsed once. Statements within a function are part of the execution of the statement that
    calls it. Statements are shown without their literals, or with `raw` as they were sent. After MAX_LABELS of them,
    new statements are counted together as OTHERS. Raises NotFoundError if there is no server, or one without the
    probes, and UsageError for the process of a postmaster.
    """

    def __init__(self, session: Session, program: Program = None, *, raw: bool = False) -> None:
        files = programs(session, program)
        self._statements = Statements(session, files, raw=raw)
        for path in files:
            for phase in PHASES:
                start, done = (usdt(f"postgresql:query__{phase}__{end}", path) for end in ("start", "done"))
                session.pair(start, done).emit("latency")
        self._pending: dict[int, list[Any]] = defaultdict(list)  # phases of the statement that a backend is at
        self._totals: dict[str, dict[str, int]] = {}

    def add(self, event: Any) -> None:
        """Add the end of a phase, or note the new statement of a backend."""
        if self._statements.is_report(event):
            self._settle(event.pid)
            self._statements.note(event)
            return
        # Phases that began since this one did were within it.
        start = event.time_ns - event.latency_ns
        pending = self._pending[event.pid]
        pending[:] = [phase for phase in pending if phase.time_ns <= start]
        pending.append(event)

    def flush(self) -> list[dict[str, Any]]:
        """A row for each statement since the last call, beginning with the one that took the most time.

        `count` is how often it was executed; the times are `parse_ns`, `rewrite_ns`, `plan_ns` and `execute_ns`.
        """
        for pid in [*self._pending]:
            self._settle(pid)
        totals, self._totals = self._totals, {}
        costliest_first = sorted(totals.items(), key=lambda item: -sum(item[1][phase] for phase in PHASES))
        return [
            {
                **{"count": total["count"]},
                **{f"{phase}_ns": total[phase] for phase in PHASES},
                **{"statement": statement},
            }
            for statement, total in costliest_first
        ]

    def _settle(self, pid: int) -> None:
        """Add the phases of a backend to its statement."""
        for event in self._pending.pop(pid, ()):
            statement = bounded(self._statements.of(pid) or "?", self._totals)
            total = self._totals.setdefault(statement, dict.fromkeys(("count", *PHASES), 0))
            phase = event.probe.split("__")[1]
            total[phase] += event.latency_ns
            total["count"] += phase == "execute"
