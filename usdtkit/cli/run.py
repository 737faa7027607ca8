"""What every tracing command and tool shares: its common options, and the life of a session at the terminal.

Input: an argparse parser, later its options; a session with its sources. Output: rows in a `Report`, the exit code.
"""

from __future__ import annotations

import argparse
import functools
import operator
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from usdtkit import processes
from usdtkit.cgroups import cgroup_ids
from usdtkit.errors import NotFoundError, PrivilegeError
from usdtkit.output.report import Column, Format, Report, note
from usdtkit.output.text import printable
from usdtkit.trace import Planned, Session, Source, cgroup, comm, tid, uid

LOST_EVENTS = 6
SHOWN = 5  # names in a warning
# timeout(1) and others send one signal to the process and the same to its group.
TWICE_S = 0.2
COMM_LENGTH = 15  # the kernel keeps so much of a thread's name
Describe = Callable[[Any], Mapping[str, Any] | None]
Finish = Callable[[Report], None]
Made = TypeVar("Made")
AnySource = TypeVar("AnySource", bound=Source)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--json and --csv."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", dest="format", action="store_const", const="json", help="JSON Lines")
    group.add_argument("--csv", dest="format", action="store_const", const="csv", help="CSV with a heading")
    parser.set_defaults(format="table")


def add_session_options(parser: argparse.ArgumentParser, *, command: Sequence[str] = ("-c", "--command")) -> None:
    """-p, -d and the other options of everything that traces; `new_session` and `follow` obey them.

    `command`: what the option for a command is called.
    """
    parser.add_argument(
        "-p", "--pid", type=pids, action="extend", help="trace this process only (repeatable, or several: 12,34)"
    )
    parser.add_argument(
        *command,
        dest="command",
        type=words,
        metavar="CMD",
        help="start this and trace it from its first instruction",
    )
    parser.add_argument("-d", "--duration", type=seconds, metavar="SEC", help="end after so many seconds")
    parser.add_argument(
        "--max-lost",
        type=count,
        metavar="N",
        help=f"end with exit code {LOST_EVENTS} when more than N events were lost",
    )
    parser.add_argument(
        "--drop", action="store_true", help="when attached, give up all privileges: become who called sudo, or nobody"
    )
    parser.add_argument("--drop-to", metavar="USER", help="the same, and become this user")
    parser.add_argument("--explain", action="store_true", help="list what would be attached to, and attach nothing")
    parser.add_argument("--program", action="store_true", help="show the BPF program before it runs")
    # What `usdtkit bundle` puts others in place of; by_heart, it does not matter what runs here.
    parser.set_defaults(session=Session, by_heart=False)
    add_output_options(parser)


def add_ignored_options(
    parser: argparse.ArgumentParser, flags: Mapping[str, str], *, takes_value: bool = False
) -> None:
    """Options of bcc's tool that mean nothing here, each with the reason: they are accepted, and noted."""
    for flag, reason in flags.items():
        parser.add_argument(
            *flag.split(), action=_Ignored, nargs=None if takes_value else 0, const=reason, help=argparse.SUPPRESS
        )


class _Ignored(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        note(f"usdtkit: {option_string} is ignored: {self.const}")


def add_interval_options(parser: argparse.ArgumentParser, *, interval: float | None = None) -> None:
    """-i, -T and -n of what summarises; `follow_intervals` obeys them. `interval`: the seconds without -i."""
    told = "SEC" if interval is None else f"SEC, else every {interval:g}"
    parser.add_argument(
        "-i", "--interval", type=seconds, default=interval, metavar="SEC", help=f"print and begin anew every {told}"
    )
    parser.add_argument("-n", "--intervals", type=positive, metavar="N", help="end after so many intervals")
    parser.add_argument("-T", "--timestamp", action="store_true", help="the time before what is printed")


def add_unit_options(parser: argparse.ArgumentParser, milliseconds: str = "-m") -> None:
    """-u and -m of histograms of time: `options.unit` in nanoseconds, `options.unit_name` what the value is called."""
    group = parser.add_mutually_exclusive_group()
    units = (("-u", "--microseconds", "us", 1_000), (milliseconds, "--milliseconds", "ms", 1_000_000))
    for letter, flag, name, size in units:
        group.add_argument(
            *([letter] if letter else []), flag, action=_Unit, nargs=0, const=(name, size), help=f"buckets in {name}"
        )
    parser.set_defaults(unit=1, unit_name="latency_ns")


class _Unit(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name, namespace.unit = self.const
        namespace.unit_name = f"latency_{name}"


def add_filter_options(parser: argparse.ArgumentParser, **aliases: str) -> None:
    """--tid, --uid, --comm and --cgroup of what can be narrowed; `filtered` obeys them. `aliases`: tid="-t"."""
    group = parser.add_argument_group("only hits")
    for name, parse, metavar, of in (
        ("tid", pid, "TID", "of this thread"),
        ("uid", user, "USER", "of processes of this user, a number or a name"),
        ("comm", str, "NAME", "of threads of this name, or of names like it: 'java*'"),
        ("cgroup", str, "CGROUP", "in this cgroup and those below it: a path, a name, or a container's id"),
    ):
        flags = [f"--{name}", *([aliases[name]] if name in aliases else [])]
        group.add_argument(*flags, dest=name, type=parse, action="append", metavar=metavar, help=f"{of} (repeatable)")


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
    """A session for the parsed options; `pids` in place of those of -p."""
    found = options.pid if pids is None else pids
    drop = options.drop if options.drop_to is None else options.drop_to
    common = {"command": options.command, "duration": options.duration, "drop": drop}
    session: Session = options.session(pid=found, ordered=True, **common, **more)
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
    if options.explain:
        return explain(session, options.format)
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
    if options.explain:
        return explain(session, options.format)
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
    if options.program:
        note(session.program().text)
    session.start(_warn_of_cost)


def _begin(session: Session) -> None:
    for refusal in session.refused:
        note(f"usdtkit: not attached: {refusal.path}+{refusal.file_offset:#x}: {refusal.reason}")
    note("Tracing… Ctrl-C ends.")


def _end(session: Session, report: Report, options: argparse.Namespace) -> int:
    for line in session.advice():
        note(f"usdtkit: {line}")
    summary = session.summary()
    report.summary(summary)
    return LOST_EVENTS if options.max_lost is not None and summary.lost > options.max_lost else 0


def explain(session: Session, format: Format) -> int:
    """Write the plan of a session, a site a row; then what it would cost."""
    report = Report("explain", EXPLAINED, format)
    plan = session.plan()
    for site in plan:
        report.row(site.to_json())
    _warn_of_cost(plan)
    return 0


def _arguments(arguments: Sequence[Mapping[str, str]]) -> str:
    return printable(", ".join(f"{argument['name']} {argument['type']}" for argument in arguments))


EXPLAINED = [
    *(Column("KIND", "kind", 6), Column("OFFSET", "file_offset", 12, hex)),
    *(Column("SEMAPHORE", "semaphore_offset", 12, lambda at: hex(at) if at else "-"), Column("COST", "cost", 8)),
    *(Column("NAME", "name", 28), Column("FILE", "path", 40), Column("ARGUMENTS", "arguments", 0, _arguments)),
]


def _warn_of_cost(plan: Sequence[Planned]) -> None:
    sites = {(site.path, site.file_offset): site for site in plan}
    stepped = sorted({site.name for site in sites.values() if site.cost == "stepped"})
    if stepped:
        number = sum(site.cost == "stepped" for site in sites.values())
        names = ", ".join(stepped[:SHOWN]) + (", …" if len(stepped) > SHOWN else "")
        note(f"usdtkit: {number} of {len(sites)} sites are single-stepped, 7 to 17 µs a hit instead of 0.5: {names}")


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


def pid(text: str) -> int:
    """For argparse: a process's number."""
    return _whole(text, "the number of a process")


def pids(text: str) -> list[int]:
    """For argparse: numbers of processes, with commas between them."""
    return [pid(number) for number in text.split(",")]


def user(text: str) -> int:
    """For argparse: a user's number, by number or name."""
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no user {text!r}") from None


def count(text: str) -> int:
    """For argparse: a number of things, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events")
    return int(text)


def positive(text: str) -> int:
    """For argparse: a number of things, at least 1."""
    return _whole(text, "a number above 0")


def steps(text: str) -> tuple[int, int, int]:
    """For argparse: the bounds of a linear histogram, and its step."""
    try:
        low, high, step = (int(part, 0) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW:HIGH:STEP, such as 0:4096:512") from None
    return low, high, step


def words(text: str) -> list[str]:
    """For argparse: a command as a shell would split it."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def seconds(text: str) -> float:
    """For argparse: a positive number of seconds."""
    return _amount(text, "seconds", zero=False)


def milliseconds(text: str) -> float:
    """For argparse: a threshold, 0 or more."""
    return _amount(text, "milliseconds", zero=True)


def _whole(text: str, what: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)


def _amount(text: str, unit: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9 or (value == 0 and not zero):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}")
    return value
