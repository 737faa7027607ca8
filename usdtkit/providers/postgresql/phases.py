"""In which phase a statement of PostgreSQL spends how much of its latency: parsing, binding, planning and so on.

Input: a session, the time that a backend has worked on its statement so far, and the server's probes of its phases.
Output: the time of each phase, for `work`. They add up to the latency, because each moment belongs to one of them.
"""

from __future__ import annotations

from usdtkit.errors import NotFoundError
from usdtkit.trace import Expression, Session, Source, ThreadKind

PHASES = ("parse", "rewrite", "bind", "plan", "execute", "commit")
"""The phases of a statement, in their order."""
PARSE, REWRITE, BIND, PLAN, EXECUTE, COMMIT = range(1, 7)


class Phases:
    """The phases of the statement that each backend is at. What a statement within a function takes belongs to the
    execution of the one that calls it. `portals` is how many executions are open, of which one may be within another.
    """

    def __init__(self, session: Session, latency: Expression) -> None:
        self._session, self._latency = session, latency
        numbers: dict[str, ThreadKind] = dict.fromkeys(("phase", "since", "portals", *PHASES), "u64")
        self._values = session.thread_values(**numbers)
        self._phase, self._portals = self._values.get("phase"), self._values.get("portals")

    def follow(self, program: str, is_open: Expression) -> None:
        """Follow the phases of statements, where one `is_open`. NotFoundError for a program without the probes."""
        before = is_open & (self._phase != EXECUTE)
        self._begin(self._probe(program, "parse__start").where(before), PARSE)
        self._begin(self._probe(program, "rewrite__start").where(before), REWRITE)
        self._begin(self._probe(program, "plan__start").where(before), PLAN)
        self._begin(self._probe(program, "plan__done").where(is_open & (self._phase == PLAN)), BIND)
        starts = self._probe(program, "execute__start").where(is_open)
        self._begin(starts.where(self._portals == 0), EXECUTE)
        starts.assign(self._values, portals=self._portals + 1)
        ends = self._probe(program, "execute__done").where(is_open & (self._portals != 0))
        self._begin(ends.where(self._portals == 1), COMMIT)
        ends.assign(self._values, portals=self._portals - 1)

    def report(self, reports: Source, *, goes_on: Expression) -> None:
        """A backend says what it is at: a message of the same statement if it `goes_on`, or a new one."""
        times = {name: goes_on * time for name, time in self.times().items()}
        reports.assign(self._values, **times, since=goes_on * self._latency, phase=BIND, portals=0)

    def execute(self, calls: Source) -> None:
        """A function is executed, without a statement."""
        self._begin(calls, EXECUTE)

    def times(self) -> dict[str, Expression]:
        """The time of each phase until now."""
        in_phase = self._latency - self._values.get("since")
        return {
            name: self._values.get(name) + (self._phase == number) * in_phase for number, name in enumerate(PHASES, 1)
        }

    def _probe(self, program: str, name: str) -> Source:
        probe = f"postgresql:query__{name}"
        try:
            return self._session.usdt(probe, program)
        except NotFoundError:
            raise NotFoundError(
                f"{program} has no probe {probe}, without which phases are not known",
                hint="a PostgreSQL built with --enable-dtrace has it, such as Debian's",
            ) from None

    def _begin(self, source: Source, phase: int) -> None:
        source.assign(self._values, **self.times(), since=self._latency, phase=phase)
