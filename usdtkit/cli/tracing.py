"""Runs a tool at the terminal: its command line becomes options, a session and a sink, and its results go to the sink.

Input: a module of `usdtkit.tools` and its parsed command line. Output: what the tool's results show, the account of the
session, and the exit code.

A tool is a module with a docstring (its help text), TOPIC, COLUMNS, `Options` and `trace(session, options)`, which
sets up the session and returns `usdtkit.results`. It may also have SPELLING (how it spells the shared options),
VARIANTS (command lines whose programs are shipped compiled), SCHEMA_VERSION (if not 1), and `processes(options)`,
which finds the processes to trace if the user names neither these nor a command.
"""

from __future__ import annotations

import argparse
import functools
import io
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from usdtkit import processes
from usdtkit.cgroups import cgroup_ids
from usdtkit.cli import explain
from usdtkit.cli.arguments import LOST_EVENTS, Spelling, StackOptions, add_tool_options
from usdtkit.cli.messages import note
from usdtkit.cli.options import ToolOptions
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.output.sink import Sink, open_sink, sink_type
from usdtkit.output.text import printable
from usdtkit.records import replace
from usdtkit.results.account import Account
from usdtkit.results.blocks import Block
from usdtkit.results.columns import TIME, Column, Schema
from usdtkit.results.results import Results, Rows, Summaries
from usdtkit.trace import Expression, Planned, Session, cgroup, comm, tid, uid

if TYPE_CHECKING:
    from usdtkit.kernel.attach.sites import Refusal
    from usdtkit.trace import FunctionSpec, UsdtSpec
    from usdtkit.trace.arrival import Arrival

# For which events gather, so that a tool costs a fraction: nobody notices it who reads a terminal; or a file or pipe.
TERMINAL_S, ELSEWHERE_S = 0.05, 0.2
STDERR = 2  # its descriptor
# timeout(1) and others send one signal to the process and the same one to its group.
SAME_SIGNAL_S = 0.2
MAX_REFUSED = 30  # names in a message; -v tells them all
COMM_LENGTH = 15  # the kernel keeps this many bytes of a thread's name


def configure(parser: argparse.ArgumentParser, tool: ModuleType) -> None:
    """Add all options of a tool to a parser."""
    add_tool_options(parser, tool.Options, spelling_of(tool))


def spelling_of(tool: ModuleType) -> Spelling:
    """How a tool spells the shared options."""
    spelling: Spelling = getattr(tool, "SPELLING", Spelling())
    return spelling


def _schema_version(tool: ModuleType) -> int:
    version: int = getattr(tool, "SCHEMA_VERSION", 1)
    return version


def name_of(tool: ModuleType) -> str:
    """The name of a tool."""
    return tool.__name__.rpartition(".")[2]


def tool_schema(tool: ModuleType) -> Schema:
    """All columns that a tool may write. Every row has a time: its own, or that of its interval."""
    has_time = any(column.name == TIME.name for column in tool.COLUMNS)
    columns = (*([] if has_time else [replace(TIME, heading="")]), *tool.COLUMNS)
    return Schema(name_of(tool), columns, version=_schema_version(tool))


def run_tool(tool: ModuleType, parsed: argparse.Namespace) -> int:
    """Trace until Ctrl-C, SIGTERM, SIGHUP, the duration, or the end of the traced processes. Returns the exit code."""
    options: ToolOptions = tool.Options.of(parsed)
    results = _set_up(tool, options, parsed)
    if results is None:
        return 0
    with results.session as session, _sink(parsed) as sink:
        named_pids = [word for word in words_of(options, parsed) if isinstance(word, int)]
        if parsed.explain:
            explain.explain(session, sink, named_pids)
            return 0
        if parsed.program or (parsed.verbose and parsed.shows_program):
            note(session.program().text)
        columns = _with_frames(results.columns, options)
        schema = Schema(name_of(tool), columns, isinstance(results, Summaries), _schema_version(tool))
        sink.check(schema)
        session.start(lambda plan: _announce(session, plan, parsed, named_pids))
        sink.begin(schema)
        # Until the last line: a signal that comes while the trace ends by itself must not cost its results.
        with _stop_on_signals(session.stop):
            _show(results, sink, parsed)
            return _end(results, sink, parsed)


def _with_frames(columns: Sequence[Column], options: ToolOptions) -> Sequence[Column]:
    """The columns, of which those of stacks show the frames that the options ask for."""
    frames = options.frames if isinstance(options, StackOptions) else ""
    return [replace(column, frames=frames) if column.type == "stack" else column for column in columns]


def _set_up(tool: ModuleType, options: ToolOptions, parsed: argparse.Namespace) -> Results | None:
    """The results of a tool, whose session has not started yet; None if a signal ended the wait for what it traces."""
    if parsed.wait and parsed.command:
        raise UsageError("--wait waits for processes that others start", hint="leave out -c, or --wait")
    until = None if parsed.duration is None else time.monotonic() + parsed.duration
    arrival: Arrival | None = None
    try:
        while True:
            if parsed.wait and arrival is None:
                from usdtkit.trace.arrival import Arrival  # lazy: few wait

                arrival = Arrival(words_of(options, parsed))
            missing: list[UsdtSpec | FunctionSpec] = []
            try:
                session = open_session(tool, options, parsed)
                try:
                    results: Results = tool.trace(session, options)
                except BaseException:
                    missing = session.missing
                    session.close()
                    raise
                return results
            except NotFoundError as error:
                if arrival is None:
                    raise
                with _stop_on_signals(arrival.stop) as signals:
                    note(f"usdtkit: waiting: {error.message}")
                    if not arrival.wait(missing, until):
                        if signals:
                            return None
                        raise
    finally:
        if arrival is not None:
            arrival.close()


def open_session(tool: ModuleType, options: ToolOptions, parsed: argparse.Namespace, **offline: Any) -> Session:
    """The session that a command line asks for. `offline` are the session's arguments of that kind."""
    words, found_pids = words_of(options, parsed), None
    if not words and not parsed.command and not offline and hasattr(tool, "processes"):
        found_pids = tool.processes(options)
    if parsed.follow and not (words or found_pids):
        raise UsageError("--follow is about the processes of -p", hint="without -p, every process is traced")
    condition = narrowing(parsed)  # before the session, which starts the command
    session = _session(words or None, found_pids, session_arguments(tool, options, parsed) | offline)
    if condition is not None:
        session.narrow(condition)
    return session


def words_of(options: ToolOptions, parsed: argparse.Namespace) -> list[int | str]:
    """The numbers and names of the processes to trace that the user gave: those of -p, and of a tool's own
    arguments."""
    from_options = [value for name, value in options.session_values() if name == "pid" and value is not None]
    return [*from_options, *(parsed.pid or ())]


def session_arguments(tool: ModuleType, options: ToolOptions, parsed: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the session that the command line asks for, without its processes."""
    arguments = {
        "command": parsed.command,
        "duration": parsed.duration,
        "drop_privileges": parsed.drop if parsed.drop_to is None else parsed.drop_to,
        "capacity": None if spelling_of(tool).capacity else parsed.capacity,
        "returns": parsed.returns,
        "ordered": True,
        "delay": TERMINAL_S if parsed.output is None and sys.stdout.isatty() else ELSEWHERE_S,
        "discover": True,
        "follow": parsed.follow,
    }
    if parsed.format != "table":
        # The output of a command must not stand among data for programs.
        arguments["command_stdout"] = STDERR
    if ring_size := spelling_of(tool).ring_size:
        arguments["ring_size"] = ring_size
    from_options = {name: value for name, value in options.session_values() if name != "pid" and value is not None}
    return arguments | from_options


def narrowing(parsed: argparse.Namespace) -> Expression | None:
    """The condition of the options of `add_filter_options`: any value of one option, and all of the options given."""
    conditions: list[Expression] = []
    for alternatives in (
        [tid == number for number in getattr(parsed, "tid", None) or ()],
        [uid == number for number in getattr(parsed, "uid", None) or ()],
        [_is_named(name) for name in getattr(parsed, "comm", None) or ()],
        [cgroup == number for name in getattr(parsed, "cgroup", None) or () for number in cgroup_ids(name)],
    ):
        if alternatives:
            conditions.append(functools.reduce(operator.or_, alternatives))
    return functools.reduce(operator.and_, conditions) if conditions else None


def _is_named(name: str) -> Expression:
    return comm.matches(name) if set(name) & set("*?") else comm == name[:COMM_LENGTH]


def _session(words: Sequence[int | str] | None, found_pids: Sequence[int] | None, arguments: dict[str, Any]) -> Session:
    """A session for the named processes, else for those that were found, of which some may have ended since."""
    if words or not found_pids:
        return Session(pid=words, **arguments)
    try:
        return Session(pid=found_pids, **arguments)
    except NotFoundError:
        left = [pid for pid in found_pids if processes.process_of(pid) == pid]
        if not left or len(left) == len(found_pids):
            raise
        return _session(None, left, arguments)


@contextmanager
def _sink(parsed: argparse.Namespace) -> Iterator[Sink]:
    """The sink of the chosen format, on standard output or on the file that `--output` names."""
    path: str | None = parsed.output
    if path is None:
        sink = open_sink(parsed.format, sys.stdout)
        yield sink
        sink.close()
        return
    make_sink = sink_type(parsed.format)  # before the file, which an unknown format leaves as it is
    with io.TextIOWrapper(io.BufferedWriter(_OutputFile(path, "w")), "utf-8", "backslashreplace") as file:
        sink = make_sink(file)
        yield sink
        sink.close()


class _OutputFile(io.FileIO):
    """The file that `--output` names. A write that fails says to which file."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise UsdtkitError(f"{self.name!s}: {error.strerror}") from None


def _announce(session: Session, plan: Sequence[Planned], parsed: argparse.Namespace, named: Iterable[int]) -> None:
    """Tell the user what they should know before the trace begins."""
    for remark in session.remarks:
        note(f"usdtkit: {remark}")
    explain.warn_of_cost(plan, stepped=parsed.chosen or parsed.verbose)
    explain.warn_of_owners(explain.strangers(plan, named))
    if parsed.verbose:
        files: dict[str, set[int]] = {}
        for site in plan:
            files.setdefault(site.path, set()).add(site.file_offset)
        for path, offsets in files.items():
            note(f"usdtkit: {len(offsets)} {'site' if len(offsets) == 1 else 'sites'} in {path}")


def _show(results: Results, sink: Sink, parsed: argparse.Namespace) -> None:
    """Write the results as they come, until the trace ends."""
    session = results.session
    _tell_refused(session.refused, parsed.verbose)
    session.presence.tell(lambda line: note(f"usdtkit: {line}"))
    session.on_remark = lambda line: note(f"usdtkit: {line}")
    note("Tracing… Ctrl-C ends.")
    if isinstance(results, Rows):
        for rows in results.batches():
            sink.rows(rows)
        _write(results.rest(), sink)
    elif isinstance(results, Summaries):
        for number, blocks in enumerate(results.every(getattr(parsed, "interval", None)), 1):
            sink.interval(timestamp=getattr(parsed, "timestamp", False))
            _write(blocks, sink)
            if number == getattr(parsed, "intervals", None):
                break
        session.detach()


def _tell_refused(refused: Sequence[Refusal], verbose: bool) -> None:
    """Name the probes and functions that the kernel did not take, in a line for each file and reason."""
    alike: dict[tuple[str, str], list[str]] = {}
    for refusal in refused:
        name = printable(refusal.name) or f"+{refusal.file_offset:#x}"
        alike.setdefault((refusal.path, refusal.reason), []).append(name)
    for (path, reason), names in alike.items():
        listed = explain.listed(names, None if verbose else MAX_REFUSED)
        note(f"usdtkit: not attached: {len(names)} in {path}, because {reason}: {listed}")


def _write(blocks: Iterable[Block], sink: Sink) -> None:
    for block in blocks:
        sink.block(block)


def _end(results: Results, sink: Sink, parsed: argparse.Namespace) -> int:
    session = results.session
    for line in [*results.notes(), *(f"usdtkit: {line}" for line in session.advice(larger="--capacity N"))]:
        note(line)
    summary = session.summary()
    if summary.command_status:
        from usdtkit.trace.command import ending  # lazy: most sessions start no command

        note(f"usdtkit: {ending(summary.command_status)}")
    reasons = [] if summary.hits or summary.received else session.presence.reasons()
    in_kernel = isinstance(results, Summaries) and results.take is None
    account = Account(summary, reasons, session.unexplained_ends(), in_kernel=in_kernel)
    if sink.shows_account:
        sink.end(account)
    else:
        note(account.line())
    too_many_lost = parsed.max_lost is not None and summary.lost > parsed.max_lost
    return LOST_EVENTS if too_many_lost else results.exit_code()


@contextmanager
def _stop_on_signals(stop_it: Callable[[], object]) -> Iterator[list[int]]:
    """Call `stop_it` at the first signal that asks to end. Gives the signals that have come."""
    import signal  # lazy: it takes 0.4 ms, and only a trace that runs catches signals

    asked_at: float | None = None
    come: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        come.append(number)
        if asked_at is None:
            asked_at = time.monotonic()
            stop_it()
        elif time.monotonic() - asked_at > SAME_SIGNAL_S:  # end at once, even if nobody reads the output
            signal.signal(number, before[number])
            signal.raise_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    before: dict[int, Any] = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield come
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
