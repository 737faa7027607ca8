"""One tracing session: sources → one program, loaded and attached → events, summaries, and an account of every hit.

Input: specs and actions. Output: iteration over events, bound aggregations, `Summary`. Everything in the kernel hangs
on this object's descriptors: closing it, or the death of the process in whatever way, detaches all.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from usdtkit.bpf import program as programs
from usdtkit.bpf.compiler import compile_program
from usdtkit.bpf.expressions import MAX_STRING
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.links import Links, Refusal, Site
from usdtkit.bpf.loader import Loaded, require_bpf
from usdtkit.bpf.operands import pack_operands
from usdtkit.bpf.ringbuf import RingBuffer
from usdtkit.errors import NotFoundError, UnsupportedError, UsageError, UsdtkitError
from usdtkit.trace.aggregations import Aggregation
from usdtkit.trace.events import EventType, record_kind
from usdtkit.trace.sources import Keep, Pair, Source, kept_fields
from usdtkit.trace.specs import FunctionSpec, Resolved, Spec, UsdtSpec, uprobe, uretprobe, usdt

if TYPE_CHECKING:
    from usdtkit.trace.stacks import Stacks

PAGE = 4096
HOUR_S = 3600.0  # poll(2) counts milliseconds in an int


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of every hit.

    `hits` that reached a hook (of a pair: that were completed), events `received` and `lost` for want of room in the
    ring buffer; entries that a full table did not take; ends without a start; starts dropped because too many were
    open in one thread; values that could not be read; hits of which no stack could be taken, for want of room or
    because the process is a 32-bit one.
    """

    hits: int
    received: int
    lost: int
    full: int
    unmatched: int
    overflow: int
    unreadable: int
    duration_s: float
    no_stack: int = 0


class Session:
    """Trace the processes `pid` (one or several), or every process that maps what is traced, present and future.

    Define sources and their actions, then iterate. Iteration attaches, and ends with `stop()`, after `duration`
    seconds, or when all of the processes have ended; what is still in the buffer then is yielded first.

    `ring_size`: bytes for events in the kernel, a power of two. `string_size`: bytes read of a string argument.
    `method`: how to attach, one of `usdtkit.bpf.links.METHODS`; None takes the best that the kernel has.
    """

    def __init__(
        self,
        *,
        pid: int | Iterable[int] | None = None,
        duration: float | None = None,
        ring_size: int = 8 << 20,
        string_size: int = 128,
        method: str | None = None,
    ) -> None:
        if ring_size < PAGE or ring_size & (ring_size - 1):
            raise UsageError(f"a ring buffer of {ring_size} bytes", hint=f"a power of two, {PAGE} or more")
        if not 1 <= string_size <= MAX_STRING:
            raise UsageError(f"strings of {string_size} bytes", hint=f"from 1 to {MAX_STRING}")
        # Each once: a process that is attached to twice would be counted twice.
        self.pids = () if pid is None else (pid,) if isinstance(pid, int) else tuple(dict.fromkeys(pid))
        self.duration = duration
        self.received = 0
        self._ring_size = ring_size
        self._string_size = string_size
        self._method = method
        self._hooks: list[programs.Hook] = []
        self._places: list[Resolved] = []  # of each hook
        self._columns: list[tuple[str, ...]] = []
        self._aggregations: list[Aggregation] = []
        self._event_types: list[EventType] = []
        self._probe_names: list[str] = []
        self._loaded: Loaded | None = None
        self._links: Links | None = None
        self._ring: RingBuffer | None = None
        self._stacks: Stacks | None = None
        self._started_at = self._ended_at = 0.0
        self._final: Summary | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pidfds = _open_pids(self.pids, self._wake)

    # Sources

    def usdt(self, name: str, path: str | None = None) -> Source:
        """Hits of a USDT probe. Raises NotFoundError where there is none of that name."""
        return self.source(usdt(name, path))

    def uprobe(self, library: str, *functions: str) -> Source:
        """Entries of functions."""
        return self.source(uprobe(library, *functions))

    def uretprobe(self, library: str, *functions: str) -> Source:
        """Returns of functions."""
        return self.source(uretprobe(library, *functions))

    def source(self, spec: Spec | Resolved) -> Source:
        """Hits of a spec, or of places that are already found."""
        resolved = spec if isinstance(spec, Resolved) else spec.resolve(self.pids)
        return Source(self, resolved, self._add_hook(resolved))

    def pair(self, start: Spec, end: Spec | None = None, *, keep: Keep = ()) -> Pair:
        """From `start` to `end` in the same thread, innermost first; without `end`, a function from entry to return.

        `keep` names what is read at the start and can be used at the end: names of arguments, or name → expression.
        """
        if end is None and isinstance(start, FunctionSpec):
            end = start.returning()
        two_probes = isinstance(start, UsdtSpec) and isinstance(end, UsdtSpec)
        one_call = isinstance(start, FunctionSpec) and not start.on_return and end == start.returning()
        if end is None or not (two_probes or one_call):
            raise UsageError(
                "a pair is two USDT probes, or a function's entry and its return",
                hint="of what begins and ends in two functions, emit both and compare their time_ns",
            )
        first = start.resolve(self.pids)
        second = first.returning() if one_call else end.resolve(self.pids)
        start_hook = self._add_hook(first)
        start_hook.start = kept_fields(keep)
        end_hook = self._add_hook(second)
        end_hook.after = start_hook
        return Pair(self, second, start_hook, end_hook)

    def _add_hook(self, resolved: Resolved) -> programs.Hook:
        self.check_open()
        hook = programs.Hook(
            len(self._hooks), resolved.what, resolved.kind, os.uname().machine, resolved.arguments, self._string_size
        )
        self._hooks.append(hook)
        self._places.append(resolved)
        return hook

    def add_event_type(self, columns: tuple[str, ...]) -> int:
        """For `Source.emit`: the number of a new kind of event."""
        self._columns.append(columns)
        return len(self._columns) - 1

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

    def program(self) -> programs.Program:
        """The program of the sources so far, as it would be compiled."""
        return programs.build(self._hooks)

    def start(self) -> None:
        """Compile (or take from the cache), load, attach. Iteration does it by itself; a second time does nothing."""
        self._check_not_closed()
        if self._loaded is not None:
            return
        if not any(hook.blocks for hook in self._hooks):
            raise UsageError("nothing to do: no source has an action", hint="source.emit(), .count() or .hist(…)")
        require_bpf()
        program = self.program()
        bytecode = compile_program(program.text)
        self._stacks = self._new_stacks() if program.has_stacks else None
        plan = _plan(self._hooks, self._places, self._stacks)
        sizes = {
            "events": self._ring_size,
            "stats": len(self._hooks) * programs.COUNTERS_ROOM,
            "operands": len(plan.operands),
        }
        self._loaded = Loaded(bytecode, program.parameters, sizes)
        try:
            maps = self._loaded.maps
            for index, packed in enumerate(plan.operands):
                maps["operands"][index.to_bytes(4, "little")] = packed
            for number, columns in enumerate(self._columns):
                self._event_types.append(EventType(self._decoding(program.records[number]), columns))
            for number, aggregation in enumerate(self._aggregations):
                table = program.tables[number]
                aggregation.bind(maps[programs.table_name(number)], replace(table, keys=self._decoding(table.keys)))
            self._probe_names = plan.probe_names
            self._ring = RingBuffer(maps["events"])
            if self._stacks is not None:
                self._stacks.open(RingBuffer(maps[programs.STACK_RECORDS]))
            self._links = Links(self._loaded, self._method)
            self._started_at = time.monotonic()
            self._attach(plan, self._links)
        except BaseException:
            self.close()
            raise

    def _new_stacks(self) -> Stacks:
        from usdtkit.trace.stacks import Stacks  # what most sessions do without

        return Stacks(self.pids, [place.path for resolved in self._places for place in resolved.places])

    def _decoding(self, layout: Layout) -> Layout:
        return layout if self._stacks is None else self._stacks.decoding(layout)

    def _attach(self, plan: _Plan, links: Links) -> None:
        attached = 0
        for (hook_index, path), sites in plan.sites.items():
            hook = self._hooks[hook_index]
            for pid in self.pids or (0,):
                attached += links.attach(hook.function, path, sites, on_return=hook.kind == "return", pid=pid)
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
        return [] if self._links is None else self._links.refused

    def __iter__(self) -> Iterator[Any]:
        for _ in self._steps(None):
            yield from self.drain()

    def intervals(self, seconds: float | None = None) -> Iterator[None]:
        """For sessions that only summarise: run as iteration does, yield every so many seconds, and at the end."""
        for due in self._steps(seconds):
            for _ in self.drain():
                pass
            if due:
                yield

    def _steps(self, interval: float | None) -> Iterator[bool]:
        """Start, and yield whenever there may be events, and when an interval is over (true); last, after detaching."""
        self.start()
        never = float("inf")
        deadline = never if self.duration is None else self._started_at + self.duration
        tick = never if interval is None else self._started_at + interval
        poller = select.poll()
        assert self._ring is not None
        stacks = () if self._stacks is None else self._stacks.fds
        for descriptor in (self._ring.fd, *stacks, self._wake, *self._pidfds):
            poller.register(descriptor, select.POLLIN)
        while True:
            yield False
            if self._wake < 0:  # closed by whoever took the last event
                return
            left = max(0.0, min(deadline, tick) - time.monotonic())
            ready = {descriptor for descriptor, _ in poller.poll(None if left == never else min(left, HOUR_S) * 1000)}
            for pidfd in ready & self._pidfds:
                poller.unregister(pidfd)
                self._pidfds.discard(pidfd)
                os.close(pidfd)
            all_ended = bool(self.pids) and not self._pidfds
            now = time.monotonic()
            if self._wake in ready or all_ended or now >= deadline:
                break
            if interval is not None and now >= tick:
                tick += interval
                yield True
                if self._wake < 0:
                    return
        self.detach()
        yield True

    def drain(self) -> Iterator[Any]:
        """The events that wait in the buffer now."""
        if self._ring is None:
            return
        if self._stacks is not None:
            self._stacks.collect()
        for payload in self._ring.drain():
            self.received += 1
            yield self._event_types[record_kind(payload)].decode(payload, self._probe_names)

    def columns(self, event: Any) -> tuple[str, ...]:
        """The fields of an event in the order in which `emit` was asked for them."""
        return next(type_.columns for type_ in self._event_types if type_.makes(event))

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
                hook, counter = divmod(int.from_bytes(key, "little"), programs.COUNTERS_ROOM)
                # A pair's hits are its ends.
                if counter < len(programs.COUNTERS) and not (counter == 0 and self._hooks[hook].start is not None):
                    totals[programs.COUNTERS[counter]] += sum(memoryview(values).cast("Q"))
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
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        for descriptor in (wake, *self._pidfds):
            os.close(descriptor)
        self._pidfds.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Plan:
    """Where everything goes: sites by (hook, file), and the entries of the map `operands`."""

    sites: dict[tuple[int, str], list[Site]]
    operands: list[bytes]
    probe_names: list[str]


def _plan(hooks: list[programs.Hook], places: list[Resolved], stacks: Stacks | None) -> _Plan:
    sites: dict[tuple[int, str], list[Site]] = {}
    lists: dict[tuple[bytes, ...], int] = {}
    names: dict[str, int] = {}
    for hook, resolved in zip(hooks, places, strict=True):
        for place in resolved.places:
            packed = tuple(pack_operands(place.operands, hook.machine))
            name, operands = names.setdefault(place.name, len(names)), lists.setdefault(packed, len(lists))
            at_entry = stacks is not None and hook.kind == "usdt" and stacks.begins_function(place)
            cookie = programs.cookie(name, operands, at_entry)
            site = Site(place.file_offset, place.semaphore_offset, cookie)
            sites.setdefault((hook.index, place.path), []).append(site)
    return _Plan(sites, [entry for entries in lists for entry in entries], list(names))


def _open_pids(pids: tuple[int, ...], wake: int) -> set[int]:
    opened: set[int] = set()
    try:
        for pid in pids:
            opened.add(os.pidfd_open(pid))
    except OSError as error:
        for descriptor in (*opened, wake):
            os.close(descriptor)
        if isinstance(error, ProcessLookupError):
            raise NotFoundError(f"there is no process {pid}", hint="pgrep -a NAME finds a process's number") from None
        raise UsdtkitError(f"process {pid}: {error.strerror}") from None
    return opened
