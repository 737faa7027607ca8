"""What every tracing command and tool shares: the life of a session at the terminal.

Input: the options of `arguments`, and a session with its sources. Output: rows in a `Report`, the exit code.
"""

from __future__ import annotations

import argparse
import functools
import operator
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from usdtkit import processes
from usdtkit.cgroups import cgroup_ids
from usdtkit.cli.arguments import LOST_EVENTS
from usdtkit.errors import NotFoundError, PrivilegeError
from usdtkit.output.report import Column, Format, Report, note
from usdtkit.output.text import printable
from usdtkit.privatedirs import stranger, user_name
from usdtkit.trace import Planned, Session, Source, cgroup, comm, tid, uid
from usdtkit.trace.command import ending

STDERR = 2  # its descriptor
SHOWN = 5  # names in a warning
MANY = 1000  # places, such as all functions of libc, at which a machine comes to a standstill
# timeout(1) and others send one signal to the process and the same to its group.
TWICE_S = 0.2
COMM_LENGTH = 15  # the kernel keeps so much of a thread's name
Describe = Callable[[Any], Mapping[str, Any] | None]
Finish = Callable[[Report], None]
Made = TypeVar("Made")
AnySource = TypeVar("AnySource", bound=Source)


def filtered(source: AnySource, options: argparse.Namespace) -> AnySource:
    """The source with only the hits that the options of `add_filter_options` leave: of those given more than once any,
    of different ones all."""
    for alternatives in (
        [tid == number for number in options.tid or ()],
        [uid == number for number in options.uid or ()],
        [comm.matches(n) if set(n) & set("*?") else comm == n[:COMM_LENGTH] for n in options.comm or ()],
        [cgroup == number for name in options.cgroup or () for number in cgroup_ids(name)],
    ):
        if alternatives:
            source = source.where(functools.reduce(operator.or_, alternatives))
    return source


def new_session(options: argparse.Namespace, *, pids: Sequence[int] | None = None, **more: Any) -> Session:
    """A session for the parsed options; `pids` in place of those of -p.

    Of `pids` that nobody has named but that were found, those that have ended since are left out.
    """
    found = options.pid if pids is None else pids
    drop = options.drop if options.drop_to is None else options.drop_to
    common = {"command": options.command, "duration": options.duration, "drop_privileges": drop}
    common |= {"capacity": options.capacity, "returns": options.returns}
    common |= {"offline": options.by_heart, "lacking": options.lacking}
    if options.format != "table" or getattr(options, "folded", False):
        common["command_stdout"] = STDERR  # what a command writes must not stand among data for programs
    make = functools.partial(Session, ordered=True, **{**common, **more})
    session: Session
    try:
        session = make(pid=found)
    except NotFoundError:
        left = [pid for pid in found or () if processes.process_of(pid) == pid]
        if found == options.pid or not left or len(left) == len(found or ()):
            raise
        return new_session(options, pids=left, **more)
    return session


def running(options: argparse.Namespace, *programs: str) -> list[int] | None:
    """The processes of -p, none for a command, else those that run one of these programs: NotFoundError of none."""
    if options.pid or options.command or options.by_heart:
        found: list[int] | None = options.pid
        return found
    if pids := processes.named(*programs):
        return pids
    names = " or ".join(programs[:2])
    if os.geteuid() != 0:
        raise PrivilegeError(f"no {names} among the processes that may be looked into", hint="run as root")
    raise NotFoundError(f"no {names} runs here", hint="start it first, give -p PID, or -c CMD to start it")


def first_found(names: Sequence[str], make: Callable[[str], Made]) -> Made:
    """What `make` makes of the first of the names for which it finds what it needs; the error of the first of all."""
    errors = []
    for name in names:
        try:
            return make(name)
        except NotFoundError as error:
            errors.append(error)
    raise errors[0]


def follow(
    session: Session,
    options: argparse.Namespace,
    tool: str,
    columns: Sequence[Column],
    *,
    describe: Describe = lambda event: event._asdict(),
    finish: Finish | None = None,
) -> int:
    """Trace until Ctrl-C, SIGTERM, SIGHUP, the duration or the end of the traced processes, writing a row an event.

    `describe` makes a row of an event, or None to leave it out; `finish` adds what comes after the rows. Returns the
    exit code.
    """
    if options.texts is not None:
        options.texts.append(session.program().text)
        return 0
    if options.explain:
        return explain(session, options)
    _start(session, options)
    format_: Format = options.format
    report = Report(tool, columns, format_)
    with _stop_on_signals(session):
        _begin(session)
        for event in session:
            row = describe(event)
            if row is not None:
                report.row(row)
    if finish is not None:
        finish(report)
    return _end(session, report, options)


def follow_intervals(
    session: Session,
    options: argparse.Namespace,
    tool: str,
    columns: Sequence[Column],
    write: Finish,
    *,
    take: Callable[[Any], object] | None = None,
) -> int:
    """Run a session that summarises, as `follow`; `write` prints a block after each interval, and at the end.

    `take` is given the events of what is summed up here and not in the kernel.
    """
    if options.texts is not None:
        options.texts.append(session.program().text)
        return 0
    if options.explain:
        return explain(session, options)
    _start(session, options)
    report = Report(tool, columns, options.format, in_blocks=True)
    with _stop_on_signals(session):
        _begin(session)
        for number, _ in enumerate(session.intervals(options.interval, take), 1):
            report.begin_block(timestamp=options.timestamp)
            write(report)
            if number == options.intervals:
                break
    session.detach()
    return _end(session, report, options)


def _start(session: Session, options: argparse.Namespace) -> None:
    if options.program or (options.verbose and options.shows_program):
        note(session.program().text)
    session.start(lambda plan: _announce(session, plan, options))


def _tell_remarks(session: Session) -> None:
    for remark in session.remarks:
        note(f"usdtkit: {remark}")


def _announce(session: Session, plan: Sequence[Planned], options: argparse.Namespace) -> None:
    """What whoever traces should know before it begins, once nothing is missing."""
    _tell_remarks(session)
    _warn_of_cost(plan, stepped=options.chosen or options.verbose)
    _tell_owners(plan, options)
    if options.verbose:
        files: dict[str, set[int]] = {}
        for site in plan:
            files.setdefault(site.path, set()).add(site.file_offset)
        for path, offsets in files.items():
            note(f"usdtkit: {len(offsets)} {'site' if len(offsets) == 1 else 'sites'} in {path}")


def _begin(session: Session) -> None:
    for refusal in session.refused:
        note(f"usdtkit: not attached: {refusal.path}+{refusal.file_offset:#x}: {refusal.reason}")
    session.presence.tell(lambda line: note(f"usdtkit: {line}"))
    note("Tracing… Ctrl-C ends.")


def _end(session: Session, report: Report, options: argparse.Namespace) -> int:
    for line in session.advice(larger="--capacity N"):
        note(f"usdtkit: {line}")
    summary = session.summary()
    if summary.command_status:
        note(f"usdtkit: {ending(summary.command_status)}")
    reasons = [] if summary.hits or summary.received else session.presence.reasons()
    report.summary(summary, reasons, unexplained_ends=session.unexplained_ends())
    return LOST_EVENTS if options.max_lost is not None and summary.lost > options.max_lost else 0


def explain(session: Session, options: argparse.Namespace) -> int:
    """Write the plan of a session, a site a row; then what it would cost, and whose files it is about."""
    plan = session.plan()
    owners = _strangers(plan, options)
    columns = EXPLAINED if owners else [one for one in EXPLAINED if one is not OWNER]
    report = Report("explain", columns, options.format)
    _tell_remarks(session)
    for site in plan:
        report.row(site.to_json() | ({"owner": owners.get(site.path)} if owners else {}))
    for (returns, why), number in Counter((site.returns, site.why) for site in plan if site.kind == "return").items():
        how = "probes where the functions leave" if returns == "sites" else "the kernel's return probes"
        note(f"usdtkit: {number} sites of returns, by {how}: {why}")
    _warn_of_cost(plan)
    _tell_owners(plan, options)
    return 0


def _arguments(arguments: Sequence[Mapping[str, str]]) -> str:
    return printable(", ".join(f"{argument['name']} {argument['type']}" for argument in arguments))


OWNER = Column("OWNER", "owner", 16, lambda owner: "-" if owner is None else user_name(owner))
EXPLAINED = [
    *(Column("KIND", "kind", 6), Column("OFFSET", "file_offset", 12, hex)),
    *(Column("SEMAPHORE", "semaphore_offset", 12, lambda at: hex(at) if at else "-"), Column("COST", "cost", 8)),
    *(Column("NAME", "name", 28), Column("FILE", "path", 40)),
    *(Column("RETURNS", "returns", 7, lambda returns: returns or "-"), OWNER),
    Column("ARGUMENTS", "arguments", 0, _arguments),
]


def _tell_owners(plan: Sequence[Planned], options: argparse.Namespace) -> None:
    for path, owner in _strangers(plan, options).items():
        note(f"usdtkit: {path} belongs to {user_name(owner)}, who decides what its probes say")


def whose(path: str) -> str:
    """Behind the path of a file: " (belongs to ada (uid 1000))" where that is neither root nor we, else ""."""
    owner = stranger(path)
    return "" if owner is None else f" (belongs to {user_name(owner)})"


def _strangers(plan: Sequence[Planned], options: argparse.Namespace) -> dict[str, int]:
    """The files of a plan that belong neither to root, nor to us, nor to the user of a process that was asked for.

    A process that was found by the name of its program was not: anybody can give a program that name.
    """
    asked_for = [*(options.pid or ()), *filter(None, [getattr(options, "process", None)])]
    users = {processes.user_of(pid) for pid in asked_for}
    owners = {path: stranger(path) for path in dict.fromkeys(site.path for site in plan)}
    return {path: owner for path, owner in owners.items() if owner is not None and owner not in users}


def _warn_of_cost(plan: Sequence[Planned], *, stepped: bool = True) -> None:
    """`stepped`: also name the sites that are single-stepped, for whoever chose them and can choose others."""
    sites = {(site.path, site.file_offset) for site in plan}
    # Nearly every function leaves by an instruction that is single-stepped: nobody has chosen that.
    entries = {(site.path, site.file_offset): site for site in plan if site.kind != "return" and site.cost == "stepped"}
    slow = sorted({site.name for site in entries.values()})
    if slow and stepped:
        number = len(entries)
        names = ", ".join(slow[:SHOWN]) + (", …" if len(slow) > SHOWN else "")
        note(f"usdtkit: {number} of {len(sites)} sites are single-stepped, 7 to 17 µs a hit instead of 0.5: {names}")
    if len(sites) > MANY and not plan[0].pids:
        note(f"usdtkit: {len(sites):,} sites in every process, all of which become slower; -p PID traces one")


@contextmanager
def _stop_on_signals(session: Session) -> Iterator[None]:
    asked_at: float | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
            session.stop()
        elif time.monotonic() - asked_at > TWICE_S:  # ends at once, also where nobody reads the output
            signal.signal(number, before[number])
            signal.raise_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before: dict[int, Any] = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
