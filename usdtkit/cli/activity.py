"""What happens to probes in the processes that have them: who traces them, and how often they have fired.

Input: probes and numbers of processes. Output: lines for people and objects for JSON, which `usdtkit list -v` and
`usdtkit doctor PROVIDER` print. A process that uses usdtkit tells its counts itself (`usdtkit.reports`), and who traces
is asked of the kernel (`usdtkit.kernel.tracers`). Neither process is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from usdtkit import processes
from usdtkit.errors import UsdtkitError
from usdtkit.kernel.tracers import Tracer, tracers
from usdtkit.model import Probe
from usdtkit.records import NamedTuple
from usdtkit.reports import EngagementReport, Report, report_of
from usdtkit.results.columns import Column

ACTIVITY = (
    Column("pid", type="id", meaning="the process"),
    Column("armed", type="boolean", nullable=True, meaning="whether its memory has a breakpoint; null if unknown"),
    Column("tracers", type="list", nullable=True, meaning="who has attached; null if that may not be seen"),
    Column("fired", type="count", nullable=True, meaning="calls fired; null if the process does not count"),
    Column("dropped", type="count", nullable=True, meaning="calls not fired, because their values did not fit"),
    Column("hooked", type="boolean", nullable=True, meaning="whether hooks are set that call it; null if none do"),
)


class Activity(NamedTuple):
    """What is known of one probe in one process.

    `fired` and `dropped` are None if the process does not count: only programs that use usdtkit do. `armed` is None
    where that cannot be seen, and `tracers` where who traces cannot be seen. `hooked` is as `ProbeReport` has it.
    """

    pid: int
    armed: bool | None
    tracers: tuple[Tracer, ...] | None
    fired: int | None
    dropped: int | None
    hooked: bool | None = None

    @property
    def line(self) -> str:
        """`traced by python3 (77) by BPF link 5; fired 997, not fired 3`."""
        parts = [self._who()]
        if self.armed and self.hooked is False:
            parts.append("hooks not set yet")
        if self.fired is not None:
            parts.append(f"fired {self.fired:,}" + (f", not fired {self.dropped:,}" if self.dropped else ""))
        return "; ".join(filter(None, parts))

    def _who(self) -> str:
        if self.tracers:
            return f"traced by {' and '.join(map(str, self.tracers))}"
        if self.armed is None:
            return "" if self.tracers is None else "not traced"
        if not self.armed:
            return "not traced"
        return "traced" if self.tracers is None else "traced by something that the kernel does not list"

    def to_json(self) -> dict[str, Any]:
        """The JSON object; `tracers` has processes and what they hold."""
        who = None
        if self.tracers is not None:
            who = [{"how": tracer.how, "processes": list(tracer.holders)} for tracer in self.tracers]
        return {**self._asdict(), "tracers": who}


class Activities:
    """Reads reports and tracers, each once, when they are first needed. `problems` says what could not be read."""

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}
        self.problems: list[str] = []

    def report(self, pid: int) -> Report:
        """The report of a process; an empty one if it has none, or if it cannot be read."""
        if pid not in self._reports:
            self._reports[pid] = Report()
            try:
                self._reports[pid] = report_of(pid)
            except UsdtkitError as error:
                self.problems.append(f"{error.message} ({error.hint})")
            except OSError:  # it has ended
                pass
        return self._reports[pid]

    @cached_property
    def tracers(self) -> list[Tracer] | None:
        """All that is attached to anything now, or None if that may not be seen."""
        try:
            return tracers()
        except UsdtkitError as error:
            self.problems.append(error.hint or error.message)
            return None

    def of(self, probe: Probe, pid: int) -> Activity:
        """What is known of a probe in a process that maps its file."""
        sites = {site.file_offset for site in probe.sites}
        own = [told for told in self.report(pid).probes if told.spec == probe.spec and told.offset in sites]
        who = self._who(probe, pid)
        if not own:
            return Activity(pid, bool(who) or None, who, None, None)
        armed = any(told.armed for told in own)
        hooks = [told.hooked for told in own if told.hooked is not None]
        counts = sum(told.fired for told in own), sum(told.dropped for told in own)
        return Activity(pid, armed, who, *counts, all(hooks) if hooks else None)

    def _who(self, probe: Probe, pid: int) -> tuple[Tracer, ...] | None:
        if self.tracers is None:
            return None
        offsets = [site.file_offset for site in probe.sites]
        return tuple(
            tracer for tracer in self.tracers if any(tracer.traces(probe.path, offset, pid) for offset in offsets)
        )


def title(pid: int) -> str:
    """How people know a process: its number, what it is called, and its number in its container."""
    inner = processes.numbers(pid)[1:]
    return f"process {pid} ({processes.title_of(pid)}" + (f", {inner[-1]} in its container)" if inner else ")")


def wrapped_lines(engagements: Sequence[EngagementReport]) -> Iterator[str]:
    """A line for each library of which something is wrapped or cannot be, and one for all that are waited for."""
    yield from (f"wrapped  {engagement}" for engagement in engagements if not engagement.waits)
    if waiting := [engagement.library for engagement in engagements if engagement.waits]:
        yield f"waiting  for the program to import {', '.join(waiting)}"
