"""Where PostgreSQL's statements spend their time, summed up by statement.

Input: a session. Output: rows with the time of each phase by statement.
"""

from __future__ import annotations

from typing import Any

from usdtkit.providers.postgresql.backends import Program, shown
from usdtkit.providers.postgresql.phases import PHASES
from usdtkit.providers.postgresql.queries import queries
from usdtkit.providers.statements import bounded
from usdtkit.trace import Session

_TIMES = tuple(f"{phase}_ns" for phase in PHASES)


class PhaseTimes:
    """The time of each phase by statement, since the last `flush`.

    Statements within a function are part of the execution of the statement that calls it. Statements are shown without
    their literals, or with `raw` as they were sent. After MAX_LABELS of them, new statements are counted together as
    OTHERS. Raises NotFoundError if there is no server, or one without the probes, and UsageError for the process of a
    postmaster.
    """

    def __init__(self, session: Session, program: Program = None, *, raw: bool = False) -> None:
        queries(session, program, steps=True, phases=True).emit("query", *_TIMES)
        self._raw = raw
        self._totals: dict[str, list[int]] = {}

    def add(self, event: Any) -> None:
        """Add a statement that has ended."""
        statement = bounded(shown(event.query, raw=self._raw) or "?", self._totals)
        total = self._totals.setdefault(statement, [0] * (1 + len(_TIMES)))
        total[0] += event.execute_ns > 0
        for index, name in enumerate(_TIMES, 1):
            total[index] += getattr(event, name)

    def flush(self) -> list[dict[str, Any]]:
        """A row for each statement since the last call, beginning with the one that took the most time.

        `count` is how often it was executed; the times are those of PHASES, such as `parse_ns`.
        """
        totals, self._totals = self._totals, {}
        costliest_first = sorted(totals.items(), key=lambda item: -sum(item[1][1:]))
        return [
            {**dict(zip(("count", *_TIMES), total, strict=True)), "statement": statement}
            for statement, total in costliest_first
        ]
