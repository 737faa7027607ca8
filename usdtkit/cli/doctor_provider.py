"""`usdtkit doctor PROVIDER`: why the probes of a provider say something, or nothing, in each process that has them.

Input: the name of a provider, and processes; none means all. Output: for each process the file that it maps, what
integrations have wrapped, who traces each probe, and how often it has fired and could not be fired. `doctor` shows the
machine itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from usdtkit import targets
from usdtkit.cli.activity import ACTIVITY, Activities, title, wrapped_lines
from usdtkit.cli.messages import note
from usdtkit.errors import NotFoundError
from usdtkit.model import Probe
from usdtkit.output.sink import open_sink
from usdtkit.output.text import printable
from usdtkit.processes import name_of
from usdtkit.reports import EngagementReport
from usdtkit.resolve import nearest
from usdtkit.results.columns import Column, Schema

_PROBE = (
    Column("name", meaning="the probe"),
    Column("path", meaning="the file"),
    *ACTIVITY,
)
_ENGAGEMENT = (
    Column("integration", meaning="the name after --with"),
    Column("library", meaning="the module"),
    Column("wrapped", type="list", meaning="what has probes"),
    Column("reason", meaning="why nothing, or nothing more"),
)
SCHEMA = Schema(
    "doctor_provider",
    (
        Column("pid", type="id", meaning="the process"),
        Column("command", meaning="what /proc calls it"),
        Column("engagements", type="list", meaning="the libraries with ready-made probes", fields=_ENGAGEMENT),
        Column("probes", type="list", meaning="the probes of the provider", fields=_PROBE),
    ),
)


def run(provider: str, pids: Sequence[int], *, json: bool) -> int:
    """Print what is known of the provider in these processes. NotFoundError if none of them has it."""
    activities = Activities()
    found, others = _by_process(provider, pids)
    # A process may wait for a library, and so have told something of the provider without a file of it.
    engaged = {pid: _engagements(activities, provider, pid) for pid in dict.fromkeys((*found, *pids))}
    shown = sorted(pid for pid in engaged if pid in found or engaged[pid])
    if not shown:
        raise _nobody(provider, others, pids)
    sink = open_sink("json", sys.stdout) if json else None
    if sink is not None:
        sink.begin(SCHEMA)
    for pid in shown:
        probes = [(probe, activities.of(probe, pid)) for probe in found.get(pid, [])]
        if sink is not None:
            row: dict[str, Any] = {"pid": pid, "command": printable(name_of(pid))}
            row["engagements"] = [each._asdict() for each in engaged[pid]]
            row["probes"] = [
                {"name": probe.name, "path": probe.path, **activity.to_json()} for probe, activity in probes
            ]
            sink.row(row)
            continue
        print(printable(title(pid)))
        for path in dict.fromkeys(probe.path for probe, _ in probes):
            print(printable(f"    file     {path}"))
        for line in wrapped_lines(engaged[pid]):
            print(printable(f"    {line}"))
        for probe, activity in probes:
            print(printable(f"    probe    {probe.name}: {activity.line or 'not counted by its program'}"))
    for problem in activities.problems:
        note(problem)
    return 0


def _by_process(provider: str, pids: Sequence[int]) -> tuple[dict[int, list[Probe]], set[str]]:
    """The probes of the provider by the process that maps their file, and the names of the other providers."""
    searched = targets.mapped_by(pids) if pids else targets.everything()
    by_path = {target.path: target.pids for target in searched}
    found: dict[int, list[Probe]] = {}
    others = set()
    for probe in targets.probes_of(searched, hold=False):
        if probe.provider != provider:
            others.add(probe.provider)
            continue
        for pid in by_path.get(probe.path, ()):
            found.setdefault(pid, []).append(probe)
    return found, others


def _engagements(activities: Activities, provider: str, pid: int) -> list[EngagementReport]:
    return [each for each in activities.report(pid).engagements if each.integration == provider]


def _nobody(provider: str, others: set[str], pids: Sequence[int]) -> NotFoundError:
    who = f"process {', '.join(map(str, pids))}" if pids else "any running process"
    return NotFoundError(
        f"no probes of {provider} in {who}{nearest(provider, sorted(others))}",
        hint=f"usdtkit list {f'-p {pids[0]} ' if pids else ''}shows what is there; a Python program's own probes "
        "appear at their first use or load(), those of its libraries with usdtkit run --with NAMES",
    )
