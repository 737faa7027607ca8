"""One tracing session: sources → one program, loaded and attached → events, summaries, and an account of every hit.

Input: specs and actions. Output: iteration over events, bound aggregations, `Summary`. Everything in the kernel hangs
on this object's descriptors: closing it, or the death of the process in whatever way, detaches all.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any

from usdtkit import targets
from usdtkit.bpf import program as programs
from usdtkit.bpf.actions import table_name
from usdtkit.bpf.compiler import compile_program
from usdtkit.bpf.expressions import MAX_STRING
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.links import Links, Refusal
from usdtkit.bpf.loader import Loaded, require_bpf
from usdtkit.bpf.pairs import MOST_NESTING, NESTING, Matching
from usdtkit.bpf.ringbuf import RingBuffer
from usdtkit.bpf.texts import GLOBS
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import (
    NotFoundError,
    PrivilegeError,
    ProgramError,
    UnsupportedError,
    UsageError,
    UsdtkitError,
)
from usdtkit.model import Function, Probe
from usdtkit.processes import process_of
from usdtkit.records import replace
from usdtkit.trace.aggregations import Aggregation
from usdtkit.trace.command import Command
from usdtkit.trace.events import Columns, Decoders
from usdtkit.trace.kernelmap import KernelMap, Kind
from usdtkit.trace.plan import Plan, Planned, Summary, make_plan, planned
from usdtkit.trace.sources import Keep, Key, Pair, Source, as_value, kept_fields
from usdtkit.trace.specs import (
    FunctionSpec,
    Resolved,
    Spec,
    StrPath,
    UsdtSpec,
    resolve_probes,
    uprobe,
    uretprobe,
    usdt,
)
from usdtkit.trace.stream import Stream

if TYPE_CHECKING:
    from usdtkit.trace.memory import Frame
    from usdtkit.trace.privileges import Identity
    from usdtkit.trace.stacks import Stacks

PAGE = 4096
HOUR_S = 3600.0  # poll(2) counts milliseconds in an int


class Session:
    """Trace the processes `pid` (one or several), or `command`, which is started for it and traced from its first
    instruction, or every process that maps what is traced, present and future.

    Define sources and their actions, then iterate. Iteration attaches, and ends with `stop()`, after `duration`
    seconds, or when all of the processes have ended; what is still in the buffer then is yielded first.

    `ring_size`: bytes for events in the kernel, a power of two. `string_size`: bytes read of a string argument.
    `method`: how to attach, one of `usdtkit.bpf.links.METHODS`; None takes the best that the kernel has.
    `ordered`: events come in the order of `time_ns` instead of that of the buffer, which differs between processors;
    `batches` keep the buffer's. `drop`: when all is attached, give up every privilege, and become this user (a name or
    number), or with True who called sudo, else nobody; a `command` is run by that user too.
    """

    def __init__(
        self,
        *,
        pid: int | Iterable[int] | None = None,
        command: Sequence[str] | None = None,
        duration: float | None = None,
        ring_size: int = 8 << 20,
        string_size: int = 128,
        method: str | None = None,
        ordered: bool = False,
        drop: bool | str = False,
    ) -> None:
        if ring_size < PAGE or ring_size & (ring_size - 1):
            raise UsageError(f"a ring buffer of {ring_size} bytes", hint=f"a power of two, {PAGE} or more")
        if not 1 <= string_size <= MAX_STRING:
            raise UsageError(f"strings of {string_size} bytes", hint=f"from 1 to {MAX_STRING}")
        if pid is not None and command is not None:
            raise UsageError("a session traces processes, or a command, not both")
        # Each once: a process that is attached to twice would be counted twice.
        self.pids = () if pid is None else (pid,) if isinstance(pid, int) else tuple(dict.fromkeys(pid))
        if pid is not None and not self.pids:
            raise UsageError("an empty list of processes to trace", hint="None stands for all")
        # Where to look for probes and functions; what a command will map, nobody knows yet.
        self._search_pids = self.pids
        self._identity = None if drop is False else _identity(None if drop is True else drop)
        self._command = None if command is None else Command(command, self._identity)
        if self._command is not None:
            self.pids = (self._command.pid,)
        self.duration = duration
        self.received = 0
        self._ring_size = ring_size
        self._string_size = string_size
        self._method = method
        self._hooks: list[programs.Hook] = []
        self._places: list[Resolved] = []  # of each hook
        self._event_types = 0
        self._aggregations: list[Aggregation] = []
        self._maps: list[KernelMap] = []
        self._stream: Stream | None = None
        self._ordered = ordered
        self._waiting: Iterator[Any] = iter(())
        self._loaded: Loaded | None = None
        self._links: Links | None = None
        self._poller: select.epoll | None = None
        self._more = -1  # readable while `poll` has left events in hand
        self._stacks: Stacks | None = None
        self._names: Stacks | None = None  # the same, or what names addresses where the program takes no stacks
        self._started_at = self._ended_at = 0.0
        self._final: Summary | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pidfds = _open_pids(self.pids, self._wake)

    # Sources

    def usdt(self, name: str, path: StrPath | None = None) -> Source:
        """Hits of a USDT probe. Raises NotFoundError where there is none of that name."""
        return self.source(usdt(name, path))

    def uprobe(self, library: StrPath, *functions: str) -> Source:
        """Entries of functions."""
        return self.source(uprobe(library, *functions))

    def uretprobe(self, library: StrPath, *functions: str) -> Source:
        """Returns of functions."""
        return self.source(uretprobe(library, *functions))

    def source(self, spec: Spec | Resolved) -> Source:
        """Hits of a spec, or of places that are already found."""
        resolved = self.resolve(spec)
        return Source(self, resolved, self._add_hook(resolved))

    def pair(
        self,
        start: Spec | Resolved,
        end: Spec | Resolved | None = None,
        *,
        keep: Keep = (),
        key: Key | tuple[Key, Key] | None = None,
        nesting: int = NESTING,
    ) -> Pair:
        """From `start` to `end`; without `end`, a function from entry to return.

        They meet in the same thread, innermost first; with `key` by its value, which is a name or an expression of an
        integer, or two of them where the ends have another than the starts: in any thread of the process. A start that
        comes again before its end replaces the one before. Of probes that nest in a thread, the one that goes deeper
        than `nesting` shows that the ends of those before it will not come: they are dropped, and counted.

        `keep` names what is read at the start and can be used at the end: names of arguments, or name → expression.
        """
        if not 1 <= nesting <= MOST_NESTING:
            raise UsageError(f"a nesting of {nesting}", hint=f"from 1 to {MOST_NESTING}")
        first = self.resolve(start)
        is_call = end is None or (isinstance(start, FunctionSpec) and not start.on_return and end == start.returning())
        if is_call and first.kind != "entry":
            raise UsageError(f"a pair that starts with {first.what} needs its end", hint="session.pair(start, end)")
        second = first.returning() if end is None or is_call else self.resolve(end)
        matching: Matching = "key" if key is not None else "frame" if is_call else "nesting"
        keys = key if isinstance(key, tuple) else (key, key)
        start_hook, end_hook = self._add_hook(first), self._add_hook(second)
        start_hook.nesting = nesting
        for hook, own in zip((start_hook, end_hook), keys, strict=True):
            hook.matching, hook.key = matching, None if own is None else as_value(own)
        start_hook.start = kept_fields(keep)
        end_hook.after = start_hook
        return Pair(self, second, Source(self, first, start_hook), end_hook)

    def map(self, *, room: int = 10_240, **fields: Kind) -> KernelMap:
        """A map in the kernel, from numbers such as addresses to `fields` (kinds "u64", "i64" or "stack"), which its
        sources' `put` and `delete` keep. It has room for so many entries."""
        self.check_open()
        self._maps.append(KernelMap(len(self._maps), room, fields))
        return self._maps[-1]

    def find_probes(self, name: str, path: str | None = None) -> list[Probe]:
        """The probes of that name (globs allowed) in `path`, else in what the session traces. NotFoundError."""
        if self._command is not None and path is None:
            with contextlib.suppress(NotFoundError):
                return targets.find_probes(name, path=self._command.program)
        return targets.find_probes(name, pids=self._search_pids, path=path)

    def find_functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        """The functions of a library that match any of the patterns, in what the session traces. NotFoundError."""
        return targets.find_functions(library, patterns, pids=self._search_pids)

    def symbol(self, pid: int, address: int) -> Frame:
        """The function that a process has at an address of code (`ip`, `caller`, a pointer to a function).

        Ask while the process runs, or has been asked about: what it had mapped is kept. Nothing known: no name, and
        `label` is the address.
        """
        if self._names is None:
            self._names = self._new_stacks()
        return self._names.frame(pid, address)

    def resolve(self, spec: Spec | Resolved) -> Resolved:
        """Where a spec leads in what the session traces. NotFoundError."""
        if isinstance(spec, Resolved):
            return spec
        if isinstance(spec, UsdtSpec):
            return resolve_probes(spec.name, self.find_probes(spec.name, spec.path))
        return spec.resolve(self._search_pids)

    def _add_hook(self, resolved: Resolved) -> programs.Hook:
        self.check_open()
        hook = programs.Hook(
            len(self._hooks), resolved.what, resolved.kind, os.uname().machine, resolved.arguments, self._string_size
        )
        hook.convention = resolved.convention
        self._hooks.append(hook)
        self._places.append(resolved)
        return hook

    def add_event_type(self) -> int:
        """For `Source.emit`: the number of a new kind of event."""
        self._event_types += 1
        return self._event_types - 1

    def add_aggregation(self, aggregation: Aggregation) -> int:
        """For `Source.count` and `Source.hist`: the number of a new table."""
        self._aggregations.append(aggregation)
        return len(self._aggregations) - 1

    def check_open(self) -> None:
        """Raise UsageError when it is too late to add to the program."""
        self._check_not_closed()
        if self._loaded is not None:
            raise UsageError("the session has started: sources and actions come before that")

    def _check_not_closed(self) -> None:
        if self._wake < 0:
            raise UsageError("the session is closed", hint="make another one")

    # Running

    def check_startable(self) -> None:
        """Raise UsageError where there is nothing to do."""
        if not any(hook.blocks for hook in self._hooks):
            raise UsageError("nothing to do: no source has an action", hint="source.emit(), .count() or .hist(…)")

    def program(self) -> programs.Program:
        """The program of the sources so far, as it would be compiled."""
        return programs.build(self._hooks, [one.layout for one in self._maps])

    def plan(self) -> list[Planned]:
        """Every site that `start` would attach to, and nothing attached."""
        return planned(self._hooks, self._places, self.pids)

    def start(self, announce: Callable[[list[Planned]], None] | None = None) -> None:
        """Compile (or take from the cache), load, attach. Iteration does it by itself; a second time does nothing.

        `announce` is called with the plan when nothing is missing and nothing attached.
        """
        try:
            self._start(announce)
        except ProgramError as error:
            from usdtkit.bpf.blame import blame  # what a program that is taken does without

            raise blame(self._hooks, error) from None

    def _start(self, announce: Callable[[list[Planned]], None] | None) -> None:
        self._check_not_closed()
        if self._loaded is not None:
            return
        self.check_startable()
        require_bpf()
        program = self.program()
        bytecode = compile_program(program.text)
        if program.has_stacks:
            self._stacks = self._names = self._new_stacks()
        plan = make_plan(self._hooks, self._places, self._stacks)
        sizes = {
            "events": self._ring_size,
            "stats": len(self._hooks),
            "operands": len(plan.operands),
            GLOBS: len(program.globs),
            **{one.name: one.room for one in self._maps},
        }
        self._loaded = Loaded(bytecode, program.parameters, sizes)
        try:
            maps = self._loaded.maps
            for name, entries in (("operands", plan.operands), (GLOBS, program.globs)):
                for index, packed in enumerate(entries):
                    maps[name][index.to_bytes(4, "little")] = packed
            stack = None if self._stacks is None else self._stacks.get
            decoders = Decoders(program, self._event_types, plan.probe_names, stack)
            for one in self._maps:
                one.bind(maps[one.name], self._decoding(one.layout, plan))
            for number, aggregation in enumerate(self._aggregations):
                table = program.tables[number]
                aggregation.bind(maps[table_name(number)], replace(table, keys=self._decoding(table.keys, plan)))
            self._stream = Stream(RingBuffer(maps["events"]), self._ring_size, decoders, ordered=self._ordered)
            if self._stacks is not None:
                self._stacks.open(RingBuffer(maps[programs.STACK_RECORDS]))
            if announce is not None:
                announce(self.plan())
            self._links = Links(self._loaded, self._method)
            self._started_at = time.monotonic()
            for function, tracepoint in program.tracepoints:
                self._links.attach_tracepoint(function, tracepoint)
            self._attach(plan, self._links)
            self._poller = self._new_poller()
            if self._identity is not None:
                self._drop(self._identity)
            if self._command is not None:
                self._command.go()
        except BaseException:
            self.close()
            raise

    def _new_stacks(self) -> Stacks:
        from usdtkit.trace.stacks import Stacks  # what most sessions do without

        return Stacks(self.pids, [place.path for resolved in self._places for place in resolved.places])

    def _new_poller(self) -> select.epoll:
        assert self._stream is not None
        poller = select.epoll()
        rings = (self._stream.fd,) if self._stacks is None else (self._stream.fd, self._stacks.fd)
        self._more = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for descriptor in (*rings, self._wake, self._more, *self._pidfds):
            poller.register(descriptor, select.EPOLLIN)
        return poller

    def drop_privileges(self, user: str | None = None) -> None:
        """Give up every privilege of this process: become `user` (a name or number; None is who called sudo, else
        nobody), without groups and capabilities and with no way back. What is attached goes on.

        Names in stacks are then known of the processes that were looked at before, and of those of that user. Raises
        UnsupportedError where the kernel (before Linux 5.19) does not let such a process read what it counts.
        """
        self._check_not_closed()
        if self._loaded is None:
            raise UsageError("the session has not started", hint="session.start(), or Session(drop=True)")
        if self._command is not None:
            raise UsageError(
                "a command that was started as another user could not be ended", hint="Session(command=…, drop=True)"
            )
        self._drop(_identity(user))

    def _drop(self, identity: Identity) -> None:
        from usdtkit.trace.privileges import drop

        assert self._loaded is not None
        if self._stacks is not None:
            self._stacks.prepare()
        drop(identity)
        try:
            self._loaded.maps["stats"][bytes(4)]
        except PrivilegeError:
            raise UnsupportedError(
                "this kernel lets nobody without privileges read the maps of a BPF program",
                hint="keep them, or take Linux 5.19, or the sysctl kernel.unprivileged_bpf_disabled=0",
            ) from None

    def _decoding(self, layout: Layout, plan: Plan) -> Layout:
        layout = layout.with_probes(plan.probe_names)
        return layout if self._stacks is None else self._stacks.decoding(layout)

    def _attach(self, plan: Plan, links: Links) -> None:
        attached = 0
        for (path, on_return), sites in plan.sites.items():
            for pid in self.pids or (0,):
                attached += links.attach(path, sites, on_return=on_return, pid=pid)
        if not attached:
            first = links.refused[0]
            where = f"{first.path}+{first.file_offset:#x}"
            raise UnsupportedError(
                f"the kernel takes none of the {len(links.refused)} sites; {where}: {first.reason}",
                hint="some first instructions cannot be probed: try another function",
            )

    @property
    def refused(self) -> list[Refusal]:
        """Sites that the kernel did not take; all others are attached."""
        # Each once, where several processes are attached to one by one.
        return [] if self._links is None else list(dict.fromkeys(self._links.refused))

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.drain() for _ in self._rounds())

    async def __aiter__(self) -> AsyncIterator[Any]:
        import asyncio

        self.start()
        loop, ready, descriptor = asyncio.get_running_loop(), asyncio.Event(), self.fileno()
        loop.add_reader(descriptor, ready.set)
        try:
            while True:
                for event in self.drain():
                    yield event
                ready.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(ready.wait(), self._left())
                if self._wake < 0:  # closed by whoever took the last event
                    return
                if self._finished(0):
                    break
        finally:
            loop.remove_reader(descriptor)
        self.detach()
        for event in self.drain():
            yield event

    def fileno(self) -> int:
        """A descriptor that is readable (select, poll, epoll) when `poll` has something to do; once started."""
        if self._poller is None:
            raise UsageError("the session is not running", hint="session.start()")
        return self._poller.fileno()

    def poll(self, callback: Callable[[Any], object], *, timeout: float | None = 0.0, budget: int | None = None) -> int:
        """For an event loop of one's own: call `callback` with each event that waits, with `budget` of them at most.

        Where none waits, first wait for one: `timeout` seconds, or with None as long as it takes. Returns how many
        there were; 0 from a session that has `ended` means that there are no more.
        """
        self.start()
        if not self.ended:
            waits = [wait for wait in (HOUR_S if timeout is None else timeout, self._left()) if wait is not None]
            if self._finished(min(waits) * 1000):
                self.detach()
        number = 0
        for event in islice(self.drain(), budget):
            number += 1
            callback(event)
        if self._more >= 0 and length_hint(self._waiting):
            os.eventfd_write(self._more, 1)
        return number

    @property
    def ended(self) -> bool:
        """Whether everything is detached: events that were sent before may still wait."""
        return self._ended_at > 0

    def batches(self) -> Iterator[Columns]:
        """As iteration, for heavy streams: columns of many events at a time, of one type each."""
        for _ in self._rounds():
            yield from self.drain_columns()

    def intervals(self, seconds: float | None = None, take: Callable[[Any], object] | None = None) -> Iterator[None]:
        """For sessions that summarise: run as iteration does, yield every so many seconds, and at the end.

        `take` is given each event as it comes.
        """
        for due in self._rounds(seconds):
            for event in self.drain():
                if take is not None:
                    take(event)
            if due:
                yield

    def _rounds(self, interval: float | None = None) -> Iterator[bool]:
        """One item each time the buffer may hold events; true when an interval (seconds) is over, and the last time.

        Before the last one everything is detached.
        """
        self.start()
        due = None if interval is None else self._started_at + interval
        while True:
            yield False
            if self._wake < 0:  # closed by whoever took the last event
                return
            waits = [HOUR_S, self._left(), None if due is None else max(0.0, due - time.monotonic())]
            if self._finished(min(wait for wait in waits if wait is not None) * 1000):
                break
            if interval is not None and due is not None and time.monotonic() >= due:
                due += interval
                yield True
                if self._wake < 0:
                    return
        self.detach()
        yield True

    def _left(self) -> float | None:
        """Seconds until the duration is over; None where there is none."""
        if self.duration is None:
            return None
        return max(0.0, self._started_at + self.duration - time.monotonic())

    def _finished(self, timeout_ms: float) -> bool:
        """Wait for something to happen; whether that is the end."""
        assert self._poller is not None
        ready = {descriptor for descriptor, _ in self._poller.poll(timeout_ms / 1000)}
        for pidfd in ready & self._pidfds:
            self._pidfds.discard(pidfd)
            self._poller.unregister(pidfd)
            os.close(pidfd)
        return self._wake in ready or (bool(self.pids) and not self._pidfds) or self._left() == 0.0

    def drain(self) -> Iterator[Any]:
        """The events that wait in the buffer now; a fast writer does not make it endless."""
        # Not by one generator within the other: each would cost every event a step.
        return chain.from_iterable(self._lists())

    def _lists(self) -> Iterator[Iterator[Any]]:
        if self._more >= 0:
            with contextlib.suppress(BlockingIOError):  # it is 0
                os.eventfd_read(self._more)
        yield self._waiting
        if self._stacks is not None:
            self._stacks.collect()
        for events in () if self._stream is None else self._stream.events(last=self.ended):
            self.received += len(events)
            # Kept, for a reader that stops in the midst of them and comes back.
            self._waiting = iter(events)
            yield self._waiting

    def drain_columns(self) -> Iterator[Columns]:
        """As `drain`, in columns."""
        if self._stacks is not None:
            self._stacks.collect()
        for columns in () if self._stream is None else self._stream.columns():
            self.received += len(columns)
            yield columns

    def stop(self) -> None:
        """End the iteration, after the events that are already there. Safe in signal handlers and other threads."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def detach(self) -> None:
        """Take all probes off; what was counted and sent stays readable until `close`."""
        if self._links is not None:
            self._links.close()
        self._ended_at = self._ended_at or time.monotonic()

    def summary(self) -> Summary:
        """The account so far."""
        if self._final is not None:
            return self._final
        totals = dict.fromkeys(programs.COUNTERS, 0)
        if self._loaded is not None:
            for key, values in self._loaded.maps["stats"].items():
                numbers = memoryview(values).cast("Q")  # of each CPU in turn
                room = programs.COUNTERS_SIZE // numbers.itemsize
                for counter, name in enumerate(programs.COUNTERS):
                    # A pair's hits are its ends.
                    if name != "hits" or self._hooks[int.from_bytes(key, "little")].start is None:
                        totals[name] += sum(numbers[counter::room])
        ended = self._ended_at or time.monotonic()
        return Summary(
            **totals, received=self.received, duration_s=ended - self._started_at if self._started_at else 0.0
        )

    def close(self) -> None:
        """Detach and free everything. The summary stays."""
        if self._wake < 0:
            return
        # First of all, so that a late `stop` does not write to what has this number next.
        wake, self._wake = self._wake, -1
        self.detach()
        if self._loaded is not None:
            self._final = self.summary()
            self._loaded.close()
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._poller is not None:
            self._poller.close()
            self._poller = None
            os.close(self._more)
            self._more = -1
        for _ in self._waiting:  # whoever iterates gets no more of them
            continue
        for descriptor in (wake, *self._pidfds):
            os.close(descriptor)
        if self._command is not None:
            self._command.close()
        self._pidfds.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _identity(user: str | None) -> Identity:
    from usdtkit.trace.privileges import Identity  # what most sessions do without

    return Identity.of(user)


def _open_pids(pids: tuple[int, ...], wake: int) -> set[int]:
    opened: set[int] = set()
    try:
        for pid in pids:
            opened.add(os.pidfd_open(pid))
    except (OSError, OverflowError) as error:
        for descriptor in (*opened, wake):
            os.close(descriptor)
        if isinstance(error, (ProcessLookupError, OverflowError)):
            raise NotFoundError(f"no process {pid}", hint="pgrep -a NAME finds the number of a process") from None
        if (process := process_of(pid)) not in (0, pid):
            raise NotFoundError(
                f"{pid} is a thread of process {process}", hint="trace that, where tid is this"
            ) from None
        raise UsdtkitError(f"process {pid}: {error.strerror}") from None
    return opened
