"""What the tools for databases show of statements: their text or their shape, whose they are, and sums by that.

Input: events of the sources of `usdtkit.cli.databases`. Output: rows, and groups of latencies.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from usdtkit.cli.databases import POSTGRES, QUERY_SIZE, Engine
from usdtkit.cli.run import Describe
from usdtkit.errors import UnsupportedError
from usdtkit.output.sql import kind, normalise
from usdtkit.output.text import decoded
from usdtkit.records import dataclass, field
from usdtkit.signatures import postgresql
from usdtkit.signatures.postgresql import PHASES
from usdtkit.trace import Distribution, Pair, Session, arg, cstr

MAX_STATEMENTS, OTHERS = 10_000, "(all others)"  # statements are as many as a client likes
Label = Literal["statement", "kind", "pid", "user", "database"]


def shown(text: str | bytes | None, engine: Engine, *, raw: bool) -> str | None:
    """A statement as it may be shown: without its data, or with `raw` as it was sent."""
    if isinstance(text, bytes):
        text = decoded(text)
    return text if raw or text is None else normalise(text, engine.dialect)


def row_maker(engine: Engine, options: argparse.Namespace) -> Describe:
    """For `follow`: rows of events that have a `query`, with the text as it may be shown."""

    def describe(event: Any) -> dict[str, Any]:
        return {**event._asdict(), "query": shown(event.query, engine, raw=options.raw_text)}

    return describe


def backend_title(pid: int) -> re.Match[str] | None:
    """What the title of a backend of PostgreSQL says, by the names in BACKEND_TITLE; None of anything else."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
    except OSError:  # it has ended
        return None
    return re.match(postgresql.BACKEND_TITLE, title)


class Groups:
    """Latencies of queries by what `label` says of their events, since the last look.

    Of more than MAX_STATEMENTS labels the later ones are one group, OTHERS.
    """

    def __init__(self, label: Callable[[Any], str]) -> None:
        self._label = label
        self._groups: dict[str, Group] = {}

    def take(self, event: Any) -> None:
        """Add an event."""
        label = self._label(event)
        if label not in self._groups and len(self._groups) >= MAX_STATEMENTS:
            label = OTHERS
        group = self._groups.setdefault(label, Group())
        group.distribution.add(event.latency_ns)
        group.greatest = max(group.greatest, event.latency_ns)

    def flush(self) -> list[tuple[str, Group]]:
        """All groups, the one with the longest time in all first; then begin anew."""
        groups, self._groups = self._groups, {}
        return sorted(groups.items(), key=lambda item: (-item[1].distribution.sum, item[0]))


@dataclass
class Group:
    """The latencies that have one label, and the greatest of them, in nanoseconds."""

    distribution: Distribution = field(default_factory=Distribution)
    greatest: int = 0

    def row(self, **labels: str) -> dict[str, Any]:
        """As a row of a table."""
        total = self.distribution
        times = {"total_ns": total.sum, "average_ns": round(total.average), "max_ns": self.greatest}
        return {"count": total.count, **times, **labels}


def labels(engine: Engine, queries: Sequence[Pair], by: Label, *, raw: bool) -> Callable[[Any], str]:
    """What says of an event with the fields `query_fields` which statement it is, what kind, whose.

    UnsupportedError where the server does not tell.
    """
    if by == "statement":
        return lambda event: shown(event.query, engine, raw=raw) or "?"
    if by == "kind":
        return lambda event: kind(shown(event.query, engine, raw=False) or "")
    if by == "pid":
        return lambda event: str(event.pid)
    if engine.forks:
        return Backends(by).of
    if any(by not in pair.keeps for pair in queries):
        raise UnsupportedError(
            f"this server says no {by} with a query", hint="only builds with the probes of MySQL 5.7 do; --by kind"
        )
    return lambda event: str(getattr(event, by))


def query_fields(pair: Pair) -> list[str]:
    """All that a pair knows of a query, for `emit`."""
    return ["latency", *(name for name in pair.keeps if name in ("query", "database", "user"))]


class Current:
    """The statement that each backend is at, from the events of its probe statement__status."""

    PROBE = "postgresql:statement__status"

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._at: dict[int, str | None] = {}

    @classmethod
    def trace(cls, session: Session, program: str) -> None:
        """Send what `take` takes."""
        reports = session.usdt(cls.PROBE, program)
        # NULL: it waits for the next message.
        reports.where(arg("status").cast("u64") != 0).emit(query=cstr("status", QUERY_SIZE))

    def take(self, event: Any) -> None:
        """Note what a backend is at now."""
        self._at[event.pid] = shown(event.query, POSTGRES, raw=self._raw)

    def of(self, event: Any) -> str | None:
        """What the backend is at that an event comes from; None where that began before the trace."""
        return self._at.get(event.pid)


class Backends:
    """PostgreSQL's backends by their titles, each looked at once, when its first query arrives."""

    def __init__(self, by: Literal["user", "database"]) -> None:
        self._by = by
        self._known: dict[int, str] = {}

    def of(self, event: Any) -> str:
        """The user or database of the backend that an event comes from; "?" where it had ended already."""
        if event.pid not in self._known:
            title = backend_title(event.pid)
            self._known[event.pid] = title[self._by] if title else "?"
        return self._known[event.pid]


class Phases:
    """The time of each of PostgreSQL's phases by statement, since the last look.

    Of more than MAX_STATEMENTS the later ones are one, OTHERS.
    """

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
        self._close(event.pid)
        self._current.take(event)

    def _close(self, pid: int) -> None:
        for phase in self._open.pop(pid, ()):
            self._add(self._current.of(phase) or "?", phase)

    def _add(self, statement: str, event: Any) -> None:
        if statement not in self._totals and len(self._totals) >= MAX_STATEMENTS:
            statement = OTHERS
        total = self._totals.setdefault(statement, dict.fromkeys(("count", *PHASES), 0))
        phase = event.probe.split("__")[1]
        total[phase] += event.latency_ns
        total["count"] += phase == "execute"

    def flush(self) -> Iterator[Mapping[str, Any]]:
        """Rows, the costliest statement first; then begin anew."""
        for pid in [*self._open]:
            self._close(pid)
        totals, self._totals = self._totals, {}
        for statement, total in sorted(totals.items(), key=lambda item: -sum(item[1][phase] for phase in PHASES)):
            times = {f"{phase}_ns": total[phase] for phase in PHASES}
            yield {"count": total["count"], **times, "statement": statement}
