"""In which part of its latency a statement of PostgreSQL spends how much time: parsing, binding, planning and so on.

Input: a session, the time that a backend has worked on its statement so far, and the server's probes of these phases.
Output: the time of each part, for `work`. The parts add up to the latency, because each moment belongs to one of them.
"""

from __future__ import annotations

from usdtkit.trace import Expression, Session, Source, ThreadKind, usdt

PARTS = ("parse", "bind", "plan", "execute", "commit")
"""The parts of a latency, in their order."""
PARSE, BIND, PLAN, EXECUTE, COMMIT = range(1, 6)


class Parts:
    """The parts of the statement that each backend is at. What a statement within a function takes belongs to the
    execution of the one that calls it. `portals` is how many executions are open, of which one may be within another.
    """

    def __init__(self, session: Session, latency: Expression) -> None:
        self._session, self._latency = session, latency
        numbers: dict[str, ThreadKind] = dict.fromkeys(("part", "since", "portals", *PARTS), "u64")
        self._values = session.thread_values(**numbers)
        self._part, self._portals = self._values.get("part"), self._values.get("portals")

    def follow(self, program: str, is_open: Expression) -> None:
        """Follow the phases of statements, where one `is_open`. NotFoundError for a program without the probes."""
        probes = {
            name: self._session.source(usdt(f"postgresql:query__{name}", program))
            for name in (
                *("parse__start", "rewrite__start", "plan__start", "plan__done", "execute__start", "execute__done"),
            )
        }
        before = is_open & (self._part != EXECUTE)
        for name in ("parse__start", "rewrite__start"):
            self._begin(probes[name].where(before), PARSE)
        self._begin(probes["plan__start"].where(before), PLAN)
        self._begin(probes["plan__done"].where(is_open & (self._part == PLAN)), BIND)
        starts, ends = probes["execute__start"].where(is_open), probes["execute__done"].where(is_open)
        self._begin(starts.where(self._portals == 0), EXECUTE)
        starts.assign(self._values, portals=self._portals + 1)
        self._begin(ends.where(self._portals == 1), COMMIT)
        ends.assign(self._values, portals=self._portals - (self._portals != 0))

    def report(self, reports: Source, *, goes_on: Expression) -> None:
        """A backend says what it is at: a message of the same statement if it `goes_on`, or a new one."""
        times = {name: goes_on * time for name, time in self.times().items()}
        reports.assign(self._values, **times, since=goes_on * self._latency, part=BIND, portals=0)

    def execute(self, calls: Source) -> None:
        """A function is executed, without a statement."""
        self._begin(calls, EXECUTE)

    def times(self) -> dict[str, Expression]:
        """The time of each part until now."""
        in_part = self._latency - self._values.get("since")
        return {name: self._values.get(name) + (self._part == number) * in_part for number, name in enumerate(PARTS, 1)}

    def _begin(self, source: Source, part: int) -> None:
        source.assign(self._values, **self.times(), since=self._latency, part=part)
