"""One tracing session: a definition, loaded and attached → events, summaries, and an account of every hit.

Input: the hooks, places, maps and tables of `definition`. Output: iteration over events, bound aggregations, `Summary`.
Everything in the kernel hangs on this object's descriptors: closing it, or the death of the process in whatever way,
detaches all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any

from usdtkit.bpf import program as programs
from usdtkit.bpf.calls import caller_of
from usdtkit.bpf.compiler import compile_program
from usdtkit.bpf.cookie import function_cookie
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.statements import table_name
from usdtkit.bpf.texts import GLOBS
from usdtkit.errors import PrivilegeError, ProgramError, UnsupportedError, UsageError
from usdtkit.files import OpenFile
from usdtkit.kernel import rejections
from usdtkit.kernel.links import REWRITTEN, FileSites, Links, Refusal, Site
from usdtkit.kernel.loader import Loaded, require_bpf
from usdtkit.kernel.maps import TABLES
from usdtkit.kernel.mounts import leave_mount
from usdtkit.kernel.ringbuf import RingBuffer
from usdtkit.model import UserPlace
from usdtkit.processes import runs, threads
from usdtkit.records import replace
from usdtkit.trace.command import Command
from usdtkit.trace.definition import Definition
from usdtkit.trace.events import Columns, Decoders
from usdtkit.trace.plan import Plan, Planned, Summary, make_plan, totals
from usdtkit.trace.presence import Presence
from usdtkit.trace.remedies import remedies  # not later: who has dropped privileges may not read our files
from usdtkit.trace.sources import Source
from usdtkit.trace.specs import check_places
from usdtkit.trace.stream import Stream
from usdtkit.trace.waiting import Waiter

if TYPE_CHECKING:
    from usdtkit.trace.memory import Frame
    from usdtkit.trace.privileges import Identity
    from usdtkit.trace.stacks import Stacks

PAGE = 4096
HOUR_S = 3600.0  # poll(2) counts milliseconds in an int


class Session(Definition):
    """Trace the processes `pid` (one or several), or `command`, which is started for it and traced from its first
    instruction, or every process that maps what is traced, present and future.

    Define sources and their actions, then iterate. Iteration attaches, and ends with `stop()`, after `duration`
    seconds, or when all of the processes have ended; what is still in the buffer then is yielded first.

    `ring_size`: bytes for events in the kernel, a power of two. `string_size`: bytes read of a string argument.
    `room`: how many entries the tables in the kernel have room for, which hold open pairs, keys of counts and
    histograms, stacks, and the maps that were given no room of their own.
    `method`: how to attach, one of `usdtkit.kernel.links.METHODS`; None takes the best that the kernel has.
    `ordered`: events come in the order of `time_ns` instead of that of the buffer, which differs between processors;
    `batches` keep the buffer's. `drop`: when all is attached, give up every privilege, and become this user (a name or
    number), or with True who called sudo, else nobody; a `command` is run by that user too. `command_stdout`: the
    descriptor that the standard output of the command goes to, where that is not ours. `returns`: how the returns of
    functions are seen. "auto" takes the kernel's return probes where these cannot harm the program, else probes on the
    instructions with which a function leaves; "sites" always takes those, "probes" never.

    `offline`: nothing on this machine is inspected or started. Sources are what `usdtkit.signatures` knows of them, and
    the first `lacking` of them that are looked for do not exist. `program().text` is all that such a session is for.
    """

    def __init__(
        self,
        *,
        pid: int | Iterable[int] | None = None,
        command: Sequence[str] | None = None,
        duration: float | None = None,
        ring_size: int = 8 << 20,
        string_size: int = 128,
        room: int | None = None,
        method: str | None = None,
        ordered: bool = False,
        drop: bool | str = False,
        command_stdout: int | None = None,
        returns: str = "auto",
        offline: bool = False,
        lacking: int = 0,
    ) -> None:
        if ring_size < PAGE or ring_size & (ring_size - 1):
            raise UsageError(f"a ring buffer of {ring_size} bytes", hint=f"a power of two, {PAGE} or more")
        super().__init__(
            pid=pid,
            command=command,
            string_size=string_size,
            room=room,
            returns=returns,
            offline=offline,
            lacking=lacking,
        )
        self._identity = None if drop is False else _identity(None if drop is True else drop)
        self._child: Command | None = None
        if self._program is not None and command is not None:
            self._child = Command(self._program, command, self._identity, stdout=command_stdout)
            self.pids = (self._child.pid,)
        self.duration = duration
        self.received = 0
        self._ring_size = ring_size
        self._method = method
        self._stream: Stream | None = None
        self._ordered = ordered
        self._waiting: Iterator[Any] = iter(())
        self._loaded: Loaded | None = None
        self._links: Links | None = None
        self._numbers: list[int] = []  # of each hook's probe, for the sites that come later
        self._rejected: dict[int, str] = {}  # numbers of sites for calls that are not fired, with their probes
        self._stacks: Stacks | None = None
        self._names: Stacks | None = None  # the same, or what names addresses where the program takes no stacks
        self._started_at = self._ended_at = 0.0
        self._threads = 0  # that there were when all was attached
        self._final: Summary | None = None
        self._waiter = Waiter(() if offline else self.pids)
        self.presence = Presence(self.pids, self._child, method)
        self._closed = False
        self._is_privileged = True

    def symbol(self, pid: int, address: int) -> Frame:
        """The function that a process has at an address of code (`ip`, `caller`, a pointer to a function).

        Ask while the process runs, or has been asked about: what it had mapped is kept. Nothing known: no name, and
        `label` is the address.
        """
        if self._names is None:
            self._names = self._new_stacks()
        return self._names.frame(pid, address)

    def check_open(self) -> None:
        """Raise UsageError when it is too late to add to the program."""
        self._check_not_closed()
        if self._loaded is not None:
            raise UsageError("the session has started: sources and actions come before that")

    def _check_not_closed(self) -> None:
        if self._closed:
            raise UsageError("the session is closed", hint="make another one")

    def plan(self) -> list[Planned]:
        """Every site that `start` would attach to, and nothing attached. UsageError once the session is closed."""
        self._check_not_closed()
        return super().plan()

    def start(self, announce: Callable[[list[Planned]], None] | None = None) -> None:
        """Compile (or take from the cache), load, attach. Iteration does it by itself; a second time does nothing.

        `announce` is called with the plan when nothing is missing and nothing attached.
        """
        try:
            self._start(announce)
        except ProgramError as error:
            from usdtkit.kernel.blame import blame  # what a program that is taken does without

            raise blame(self._hooks, error) from None

    def _start(self, announce: Callable[[list[Planned]], None] | None) -> None:
        self._check_not_closed()
        if self._loaded is not None:
            return
        if self.offline:
            raise UsageError("an offline session cannot start", hint="session.program().text is its program")
        program = self.program()
        require_bpf()
        bytecode = compile_program(program.text)
        if program.has_stacks:
            self._stacks = self._names = self._new_stacks()
        plan = make_plan(self._hooks, self._places, self._stacks)
        sizes = {
            "events": self._ring_size,
            "stats": len(self._hooks),
            "operands": len(plan.operands) or 1,
            GLOBS: len(program.globs),
            **{one.name: one.room for one in self._maps},
        }
        if self._room is not None:
            sizes = {**{one.name: self._room for one in bytecode.maps if one.type in TABLES}, **sizes}
        self._rejected = plan.rejected
        self._loaded = Loaded(rejections.counting(bytecode, plan.rejected), program.parameters, sizes)
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
            self.presence.attaching(plan.sites)
            self._links, self._numbers = Links(self._loaded, self._method), plan.numbers
            self._started_at = time.monotonic()
            self._attach(self._links, plan, program)
            self.presence.attached(plan.sites, self.refused)
            # A file that was found twice is open twice, and attached to once.
            opened = (place.file for resolved in self._places for place in resolved.places)
            for file in {id(file): file for file in opened if file is not None}.values():
                leave_mount(file)
            self._threads = threads(self.pids)
            self._waiter.watch(self._stream.fd, *([] if self._stacks is None else [self._stacks.fd]))
            if self._identity is not None:
                self._drop(self._identity)
            self.presence.begin()
        except BaseException:
            self.close()
            raise

    def _new_stacks(self) -> Stacks:
        from usdtkit.trace.stacks import Stacks  # what most sessions do without

        return Stacks(self.pids, [place.opened for resolved in self._places for place in resolved.places])

    def drop_privileges(self, user: str | None = None) -> None:
        """Give up every privilege of this process: become `user` (a name or number; None is who called sudo, else
        nobody), without groups and capabilities and with no way back. What is attached goes on.

        Names in stacks are then known of the processes that were looked at before, and of those of that user. Raises
        UnsupportedError where the kernel (before Linux 5.19) does not let such a process read what it counts.
        """
        self._check_not_closed()
        if self._loaded is None:
            raise UsageError("the session has not started", hint="session.start(), or Session(drop=True)")
        if self._child is not None:
            raise UsageError(
                "a command that was started as another user could not be ended", hint="Session(command=…, drop=True)"
            )
        self._drop(_identity(user))

    def _drop(self, identity: Identity) -> None:
        from usdtkit.trace.privileges import drop

        assert self._loaded is not None
        if self._stacks is not None:
            self._stacks.prepare()
        self.presence.before_drop()
        self._is_privileged = False
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

    def _attach(self, links: Links, plan: Plan, program: programs.Program) -> None:
        if not links.attach(plan.sites, self.pids or (0,), program.tracepoints) and links.refused:
            first = links.refused[0]
            where = f"{first.path}+{first.file_offset:#x}"
            raise UnsupportedError(
                f"the kernel takes none of the {len(links.refused)} sites; {where}: {first.reason}",
                hint="start the trace again"
                if first.reason == REWRITTEN
                else "some first instructions cannot be probed: try another function",
            )

    def extend(self, source: Source, places: Sequence[UserPlace]) -> None:
        """Attach a source of the running session to more places, such as those in files that came after the start.

        Their hits go by the name that the source has. UsageError of a pair, and of a source with arguments: where these
        lie was settled at the start. What the kernel does not take is in `refused`.
        """
        hook = source._hook
        if self._links is None or not self.can_extend:
            raise UsageError(
                "the session is not running, or has given up its privileges",
                hint="session.start(), and attach before session.drop_privileges()",
            )
        if hook.arguments or hook.start is not None or hook.after is not None or hook.kind == "return":
            raise UsageError(f"{source.resolved.what}: only a source without arguments can be extended")
        if hook.kind != "usdt":
            check_places(places)
        cookie = function_cookie(self._numbers[hook.index])
        wanted: dict[OpenFile, FileSites] = {}
        for place in places:
            site = Site(place.file_offset, place.semaphore_offset, cookie)
            wanted.setdefault(place.opened, FileSites()).add(hook.function, site)
        self._links.attach(wanted, self.pids or (0,))
        self.presence.extended(wanted)

    @property
    def can_extend(self) -> bool:
        """Whether the session runs, and has not given up the privileges with which it attaches."""
        return self._links is not None and not self.ended and self._is_privileged

    @property
    def refused(self) -> list[Refusal]:
        """Sites that the kernel did not take; all others are attached."""
        # Each once, where several processes are attached to one by one.
        return [] if self._links is None else list(dict.fromkeys(self._links.refused))

    @property
    def command_status(self) -> int | None:
        """How the command ended by itself: its exit status, or the negative number of the signal; None of none."""
        return self.presence.command_status

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
                if self._closed:  # by whoever took the last event
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
        return self._waiter.fileno()

    def poll(self, callback: Callable[[Any], object], *, timeout: float | None = 0.0, budget: int | None = None) -> int:
        """For an event loop of one's own: call `callback` with each event that waits, with `budget` of them at most.

        Where none waits, first wait for one: `timeout` seconds, or with None as long as it takes. Returns how many
        there were; 0 from a session that has `ended` means that there are no more.
        """
        self.start()
        if not self.ended:
            waits = [wait for wait in (HOUR_S if timeout is None else timeout, self._left()) if wait is not None]
            if self._finished(min(waits)):
                self.detach()
        number = 0
        for event in islice(self.drain(), budget):
            number += 1
            callback(event)
        if length_hint(self._waiting):
            self._waiter.leave()
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
        due, is_over = None if interval is None else self._started_at + interval, False
        while True:
            yield is_over
            if self._closed:  # by whoever took the last event
                return
            waits = [HOUR_S, self._left(), None if due is None else max(0.0, due - time.monotonic())]
            if self._finished(min(wait for wait in waits if wait is not None)):
                break
            is_over = False
            if interval is not None and due is not None and time.monotonic() >= due:
                due, is_over = due + interval, True
        self.detach()
        yield True

    def _left(self) -> float | None:
        """Seconds until the duration is over; None where there is none."""
        if self.duration is None:
            return None
        return max(0.0, self._started_at + self.duration - time.monotonic())

    def _finished(self, timeout: float) -> bool:
        """Wait for something to happen, `timeout` seconds; whether that is the end."""
        return self._waiter.wait(timeout) or self._left() == 0.0

    def drain(self) -> Iterator[Any]:
        """The events that wait in the buffer now; a fast writer does not make it endless."""
        # Not by one generator within the other: each would cost every event a step.
        return chain.from_iterable(self._lists())

    def _lists(self) -> Iterator[Iterator[Any]]:
        self._waiter.take()
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
        if not self._closed:
            self._waiter.stop()

    def detach(self) -> None:
        """Take all probes off; what was counted and sent stays readable until `close`."""
        if not self.ended:
            self.presence.detach(nothing_came=self.received == 0 and self._totals()["hits"] == 0)
        if self._links is not None:
            self._links.close()
        self._ended_at = self._ended_at or time.monotonic()

    def _totals(self) -> dict[str, int]:
        stats = () if self._loaded is None else self._loaded.maps["stats"].items()
        return totals(self._hooks, stats, self._open_calls())

    def summary(self) -> Summary:
        """The account so far."""
        if self._final is not None:
            return self._final
        duration = (self._ended_at or time.monotonic()) - self._started_at if self._started_at else 0.0
        rejected = sum(self._rejections().values())
        return Summary(
            **self._totals(),
            **self.presence.account(),
            received=self.received,
            rejected=rejected,
            duration_s=duration,
        )

    def _rejections(self) -> dict[str, int]:
        """How many calls of each probe were not fired, where there were any."""
        if self._loaded is None or not self._rejected:
            return {}
        return rejections.read(self._loaded.maps[rejections.REJECTED], self._rejected)

    def _open_calls(self) -> dict[int, int]:
        """How many calls of functions are open, by the hook of their entries: those whose thread still runs."""
        if self._loaded is None:
            return {}
        alive = cache(runs)
        return {
            hook.index: sum(alive(caller_of(value)) for _, value in self._loaded.maps[f"pair_{hook.index}"].items())
            for hook in self._hooks
            if hook.start is not None and hook.matching == "frame"
        }

    def unexplained_ends(self) -> int:
        """How many ends came without a start, where they are more than the calls that were open when the trace began.

        Those are one a thread, or a few where calls nest. Where nothing was completed, even a few say why; else 0.
        """
        summary = self.summary()
        usual = sum(hook.after is not None for hook in self._hooks) * (self._threads if summary.hits else 1)
        return summary.unmatched if summary.unmatched > usual else 0

    def advice(self, larger: str = "Session(room=N)") -> list[str]:
        """What to look after: probes that the traced programs call with wrong values, hits that found no room in a
        table, and what would give the stacks that were read more names. A line each; often nothing. `larger`: how the
        reader of these lines asks for larger tables."""
        wrong = [
            f"{name} was called {count:,} times with values that do not fit, and not fired: the program's log says why"
            for name, count in self._rejections().items()
        ]
        return [*wrong, *remedies(self.summary(), larger), *([] if self._stacks is None else self._stacks.advice())]

    def close(self) -> None:
        """Detach and free everything. The summary stays."""
        if self._closed:
            return
        # First of all, so that a late `stop` does not write to what has its descriptor's number next.
        self._closed = True
        self.detach()
        self._places.clear()  # which lets the files go
        if self._loaded is not None:
            self._final = self.summary()
            self._loaded.close()
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        for _ in self._waiting:  # whoever iterates gets no more of them
            continue
        self._waiter.close()
        self.presence.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _identity(user: str | None) -> Identity:
    from usdtkit.trace.privileges import Identity  # what most sessions do without

    return Identity.of(user)
