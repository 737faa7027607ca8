"""The program of one session in the kernel: loaded, attached, read, accounted for, closed.

Input: the sealed `blueprint` of a session, and the settings with which it runs. Output: events, tables that are filled,
and the account of every hit. Everything hangs on the descriptors of this object: closing it, or the death of the
process in whatever way, detaches all.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from itertools import starmap
from math import inf
from operator import length_hint
from typing import TYPE_CHECKING, Any

from usdtkit.bpf import program as programs
from usdtkit.bpf.calls import caller_of
from usdtkit.bpf.compiler import compile_program
from usdtkit.bpf.cookie import MAX_LISTS
from usdtkit.bpf.interning import SCANNERS, TEXT_RECORDS, TEXTS_SENT
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.operands import MAX_OPERANDS
from usdtkit.bpf.statements import interval_name, table_name
from usdtkit.bpf.texts import GLOBS
from usdtkit.bpf.threadvalues import values_name
from usdtkit.bpf.walker import ROWS, with_walker
from usdtkit.errors import PrivilegeError, UnsupportedError, UsdtkitError
from usdtkit.kernel import rejections
from usdtkit.kernel.attach.links import Links
from usdtkit.kernel.attach.sites import NO_PROBE, REWRITTEN, KernelSite, Refusal
from usdtkit.kernel.features import can_loop
from usdtkit.kernel.load import Loaded, require_bpf
from usdtkit.kernel.maps import TABLES
from usdtkit.kernel.ring import RingBuffer
from usdtkit.model import Clock
from usdtkit.processes import runs, threads
from usdtkit.records import replace
from usdtkit.trace.blueprint import Blueprint, Settings
from usdtkit.trace.events import Columns, Decoders
from usdtkit.trace.later import Found
from usdtkit.trace.plan import Plan, Planned, Summary, totals
from usdtkit.trace.presence import Presence
from usdtkit.trace.remedies import remedies  # not later: who has given up privileges may not read our files
from usdtkit.trace.stream import Stream

if TYPE_CHECKING:
    from usdtkit.trace.discovery import Discovery
    from usdtkit.trace.internedtexts import InternedTexts
    from usdtkit.trace.learning import Learning
    from usdtkit.trace.privileges import User
    from usdtkit.trace.stacks import Stacks
    from usdtkit.trace.unwinder import Unwinder


LEARNING_S = 0.04  # that a start may take longer, so that processes that run are known before their first stacks
ORIGINS = 16_384  # pairs of a file and a process that are told from each other
STACKS_GATHER_S = 0.05
MORE_REJECTED = 1024  # probes of later files whose calls that could not be fired are counted


class Running:
    """One program in the kernel: the constructor makes its maps; from `attach` to `detach` it sees hits."""

    def __init__(
        self,
        blueprint: Blueprint,
        settings: Settings,
        pids: tuple[int, ...],
        presence: Presence,
        make_stacks: Callable[[], Stacks],
        remark: Callable[[str], object],
    ) -> None:
        """Compile the program, or take it from the cache, and make its maps. `make_stacks` is called if it takes
        stacks, and `remark` with what the user should know of files that come later. PrivilegeError,
        UnsupportedError."""
        self._remark = remark
        self._blueprint = blueprint
        self._settings = settings
        self._pids = pids
        self._presence = presence
        self._program = blueprint.program()
        require_bpf()
        bytecode = compile_program(self._program.text)
        if self._program.has_stacks and settings.unwind == "auto" and can_loop():
            bytecode = with_walker(bytecode)
        self.stacks = make_stacks() if self._program.has_stacks else None
        self._plan = Plan(self.stacks)
        self._sites = self._plan.add(zip(blueprint.hooks, blueprint.places, strict=True))
        has_probes = any(hook.kind == "usdt" for hook in blueprint.hooks)
        grows = settings.discovers and has_probes  # then there is room for what other files have
        sizes = {
            "events": settings.ring_size,
            "stats": len(blueprint.hooks),
            "origins": ORIGINS,
            "operands": MAX_LISTS * MAX_OPERANDS if grows else len(self._plan.operands) or 1,
            GLOBS: len(self._program.globs),
            SCANNERS: len(self._program.scanners),
            **{store.name: store.capacity for store in blueprint.stores},
        }
        if settings.capacity is not None:
            sizes = {**{map.name: settings.capacity for map in bytecode.maps if map.type in TABLES}, **sizes}
        counting = rejections.counting(bytecode, len(self._plan.rejected) + (MORE_REJECTED if grows else 0))
        if self._program.has_stacks:
            from usdtkit.trace.unwinder import sizes_of  # lazy: few sessions take stacks

            sizes |= sizes_of(bytecode.maps, settings.unwind_memory)
        self._loaded = Loaded(counting, self._program.parameters, sizes)
        self._stream: Stream | None = None
        self._texts: InternedTexts | None = None
        self._links: Links | None = None
        self._waiting: Iterator[Any] = iter(())
        self._threads = 0  # that there were when all was attached
        self._final: Summary | None = None
        self._final_totals: dict[str, int] | None = None
        self._decoders: Decoders | None = None
        self.started_at = self._ended_at = 0.0
        self.received = 0
        self._discovery: Discovery | None = None
        self._learning: Learning | None = None

    def attach(self, announce: Callable[[list[Planned]], None] | None) -> None:
        """Fill the maps that the program reads, load it, and attach it. `announce` gets the plan just before.

        ProgramError where the kernel refuses the program; UnsupportedError where it takes none of the sites.
        """
        maps = self._loaded.maps
        for index, packed in enumerate(self._program.globs):
            maps[GLOBS][index.to_bytes(4, "little")] = packed
        for index, packed in enumerate(self._program.scanners):
            maps[SCANNERS][index.to_bytes(4, "little")] = packed
        self._write_operands(self._plan.operands)
        if programs.TASK_PLACES in maps:
            self._write_task_places()
        if self._program.scanners:
            from usdtkit.trace.internedtexts import InternedTexts  # lazy: few sessions have interned texts

            self._texts = InternedTexts(self._program.texts, RingBuffer(maps[TEXT_RECORDS]), maps[TEXTS_SENT])
        self._decoders = self._connect_readers(self._plan)
        ring = RingBuffer(maps["events"])
        self._stream = Stream(ring, self._settings.ring_size, self._decoders, ordered=self._settings.ordered)
        if self.stacks is not None:
            self.stacks.open(RingBuffer(maps[programs.STACK_RECORDS]))
            if ROWS in maps:
                from usdtkit.trace.unwinder import Unwinder  # lazy: few sessions take stacks

                self.stacks.unwinder = Unwinder(maps, self._settings.unwind_memory, self._remark)
                self._learn(self.stacks, self.stacks.unwinder)
        if announce is not None:
            announce(self._planned)
        self._presence.attaching(self._sites)
        self._links = Links(self._loaded, self._settings.method)
        self.started_at = time.monotonic()
        kernel_sites = [*starmap(KernelSite, self._program.tracepoints), *self._plan.kernel_sites]
        if self._settings.discovers:
            self._discovery = self._open_discovery()
        if self._learning is not None:
            self._learning.look_around(LEARNING_S)
        if not self._links.attach(self._sites, self._pids or (0,), kernel_sites):
            _require_any(self._links.refused)
        for values in (self._blueprint.threads[number] for number in self._program.reads):
            table = maps[values_name(values.number)]
            for thread, entry in values.initial():
                table.insert(thread, entry)  # a hit since then knows better
        self._presence.attached(self._sites, self.refused)
        self._threads = threads(self._pids)

    def _learn(self, stacks: Stacks, unwinder: Unwinder) -> None:
        """See to it that the processes are known to the walker: those of the session now, others beside."""
        is_command_known = self._presence.learn_command(stacks.learn)
        for pid in () if is_command_known else self._pids:
            unwinder.learn(pid)
        if self._pids and not self._settings.discovers:  # then nobody tells of what they map later
            return
        from usdtkit.trace.learning import Learning  # lazy: few sessions take stacks

        ignored = self._pids if is_command_known else ()
        self._learning = Learning(stacks.learn, unwinder.fresh, self._sites, ignored, looks_around=not self._pids)
        self._learning.begin()

    def _write_operands(self, entries: Sequence[bytes], first: int = 0) -> None:
        for index, packed in enumerate(entries, first):
            self._loaded.maps["operands"][index.to_bytes(4, "little")] = packed

    def _write_task_places(self) -> None:
        from usdtkit.kernel.taskmaps import TASK_MEMBERS, places_of  # lazy: few sessions ask for ancestors or stacks

        with suppress(UnsupportedError):
            places = places_of(TASK_MEMBERS)
            self._loaded.maps[programs.TASK_PLACES][bytes(4)] = struct.pack("<3Q", *map(places.get, TASK_MEMBERS))

    def _connect_readers(self, plan: Plan) -> Decoders:
        """Give the tables and maps of the blueprint what they read; return what reads the events."""
        maps = self._loaded.maps
        for store in self._blueprint.stores:
            store.map, store.values = maps[store.name], self._decoding(store.layout, plan)
        for number, filled in enumerate(self._blueprint.tables):
            map, table = maps[table_name(number)], self._program.tables[number]
            if self._texts is not None:
                self._texts.keep_for(map, table.keys)
            table = replace(table, keys=self._decoding(table.keys, plan))
            filled.append((map, table, maps.get(interval_name(number))))
        known = {} if self.stacks is None else self.stacks.known
        return Decoders(self._program, self._blueprint.rows, plan.probe_names, known)

    def _decoding(self, layout: Layout, plan: Plan) -> Layout:
        layout = layout.with_probes(plan.probe_names)
        if self._texts is not None:
            layout = layout.with_known("interned", self._texts.get)
        for kind, known in () if self.stacks is None else self.stacks.known.items():
            layout = layout.with_known(kind, known)
        return layout

    @property
    def descriptors(self) -> list[int]:
        """Those that are readable when records wait."""
        assert self._stream is not None
        return [self._stream.fd, *(each.fd for each in self._referred)]

    @property
    def most_delay(self) -> float:
        """For how many seconds records may gather. A process may end meanwhile, and with it the names of its stacks."""
        return inf if self.stacks is None else STACKS_GATHER_S

    @property
    def _referred(self) -> list[Stacks | InternedTexts]:
        """What events and tables refer to, each with a ring buffer of its own."""
        return [each for each in (self.stacks, self._texts) if each is not None]

    def meet_processes(self) -> None:
        """Read the first stacks of given processes at once, and with them what a command maps: it may soon end."""
        if self.stacks is not None and not self.stacks.knows(self._pids):
            self.stacks.collect()

    def _open_discovery(self) -> Discovery | None:
        """What follows files and processes that come later, listening from now on."""
        from usdtkit.trace.discovery import Discovery  # lazy: sessions of given processes discover nothing

        later, follows = self._blueprint.later(), self._settings.follows
        try:
            return Discovery(
                *(self, later, self._sites, self._pids, self._remark),
                follows=follows,
                learning=self._learning,
            )
        except UsdtkitError as error:
            self._remark(f"what starts from now on is not traced: {error.message}")
            return None

    def discover(self) -> None:
        """Follow what comes later, if the session does. To be called when privileges are what they will be."""
        if self._discovery is not None:
            self._discovery.begin()

    def extend(self, found: Found) -> int:
        """Attach to more places; how many sites that were. UsdtkitError."""
        assert self._links is not None and self._decoders is not None
        operands, names = len(self._plan.operands), len(self._plan.probe_names)
        sites = self._plan.add(found.places)
        self._write_operands(self._plan.operands[operands:], operands)
        if len(self._plan.probe_names) > names:
            self._decoders.name(self._plan.probe_names)
        attached = self._links.attach(sites, self._pids or (0,)) if sites else 0
        self._presence.extended(sites)
        if self._settings.follows:
            for file, more in sites.items():
                self._sites[file] = self._sites[file].with_more(more) if file in self._sites else more
        return attached

    def follow(self, pid: int) -> None:
        """Attach everything in one more process."""
        assert self._links is not None
        clocks = [site for site in self._plan.kernel_sites if isinstance(site.place, Clock)]
        self._links.attach_in(pid, self._sites, clocks)
        self._pids = (*self._pids, pid)
        self._presence.follow(pid)

    def leave(self, pid: int) -> None:
        """Let go of a process that has ended."""
        assert self._links is not None
        self._pids = tuple(each for each in self._pids if each != pid)
        self._links.leave(pid)

    @property
    def refused(self) -> list[Refusal]:
        """Sites that the kernel did not take, each once, also where processes are attached to one by one."""
        if self._links is None:
            return []
        refused = {(each.path, each.file_offset): each for each in self._links.refused}
        for site in self._planned:
            at = site.path, site.file_offset
            # In a file that nobody maps yet, the kernel takes every site, and leaves out what it cannot probe later.
            if at in refused or site.cost == "refused":
                reason = refused[at].reason if at in refused else NO_PROBE
                refused[at] = Refusal(*at, reason, site.name)
        return list(refused.values())

    @cached_property
    def _planned(self) -> list[Planned]:
        return self._blueprint.plan(self._pids)

    def drop_privileges(self, user: User) -> None:
        """Become this user, after opening the files that need privileges."""
        from usdtkit.trace.privileges import drop  # lazy: most sessions keep their privileges

        if self.stacks is not None:
            self.stacks.prepare(self._presence.command)
        self._presence.before_drop()
        if self._learning is not None:
            self._learning.look_around()
        self._end_discovery()
        drop(user)
        try:
            self._loaded.maps["stats"][bytes(4)]
        except PrivilegeError:
            raise UnsupportedError(
                "on this kernel, only a privileged process can read the maps of a BPF program",
                hint="keep the privileges, use Linux 5.19, or set the sysctl kernel.unprivileged_bpf_disabled=0",
            ) from None

    @property
    def ended(self) -> bool:
        """Whether everything is detached."""
        return self._ended_at > 0

    def events(self) -> Iterator[Iterator[Any]]:
        """The events that wait in the buffer now, in parts; first what the last reader has left of a part."""
        yield self._waiting
        for events in self._new():
            # Kept, for a reader that stops in the midst of them and comes back.
            self._waiting = iter(events)
            yield self._waiting

    def lists(self) -> Iterator[list[Any]]:
        """As `events`, in lists."""
        if left := [*self._waiting]:
            yield left
        yield from self._new()

    def _new(self) -> Iterator[list[Any]]:
        if self._stream is None or self._decoders is None:
            return
        self._collect()
        for events in self._stream.events(last=self.ended):
            self.received += len(events)
            yield self._decoders.finished(events)

    def columns(self) -> Iterator[Columns]:
        """As `events`, in columns of one type each."""
        if self._stream is None:
            return
        self._collect()
        for columns in self._stream.columns():
            self.received += len(columns)
            yield columns

    def _collect(self) -> None:
        """Read what events and tables refer to."""
        for each in self._referred:
            each.collect()

    @property
    def has_left_over(self) -> bool:
        """Whether a reader has left events of a part."""
        return length_hint(self._waiting) > 0

    def detach(self) -> None:
        """Take all probes off; what was counted and sent stays readable until `close`."""
        self._end_discovery()
        if not self.ended:
            self._presence.detach(nothing_came=self.received == 0 and self._totals()["hits"] == 0)
        if self._links is not None:
            self._links.close()
        self._ended_at = self._ended_at or time.monotonic()

    def close(self) -> None:
        """Detach and free everything. The summary stays."""
        self.detach()
        self._final = self.summary()
        self._loaded.close()
        self._sites.clear()  # which lets the files go
        for each in self._referred:
            each.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        for _ in self._waiting:  # whoever iterates gets no more of them
            continue

    def summary(self) -> Summary:
        """The account so far."""
        if self._final is not None:
            return self._final
        duration = (self._ended_at or time.monotonic()) - self.started_at if self.started_at else 0.0
        stacks, cut_stacks = (0, ()) if self.stacks is None else self.stacks.account()
        return Summary(
            **self._totals(),
            **self._origins(),
            unlooked=0 if self._discovery is None else self._discovery.not_looked_at,
            **self._presence.account(),
            received=self.received,
            rejected=sum(self._rejections().values()),
            unseen=self._blueprint.unseen.read(),
            stacks=stacks,
            cut_stacks=cut_stacks,
            untabled=0 if self.stacks is None or self.stacks.unwinder is None else self.stacks.unwinder.left_out,
            duration_s=duration,
        )

    def _end_discovery(self) -> None:
        if self._discovery is not None:
            self._discovery.end()
        if self._learning is not None:
            self._learning.end()

    def _origins(self) -> dict[str, int]:
        """From how many files and processes hits came."""
        keys = [int.from_bytes(key, "little") for key, _ in self._loaded.maps["origins"].items()]
        return {"files": len({key >> 32 for key in keys} - {0}), "processes": len({key & 0xFFFF_FFFF for key in keys})}

    def unexplained_ends(self) -> int:
        """As `Session.unexplained_ends`."""
        summary = self.summary()
        ends = sum(hook.after is not None for hook in self._blueprint.hooks)
        usual = ends * (self._threads if summary.hits else 1)
        return summary.unmatched if summary.unmatched > usual else 0

    def advice(self, larger: str) -> list[str]:
        """As `Session.advice`."""
        wrong = [
            f"{name} was called {count:,} times with values that do not fit, and not fired: the program's log says why"
            for name, count in self._rejections().items()
        ]
        missed = [] if self._discovery is None else self._discovery.lines()
        named = [] if self.stacks is None else self.stacks.advice()
        return [*wrong, *missed, *remedies(self.summary(), larger), *named]

    def _totals(self) -> dict[str, int]:
        if self._final_totals is not None:
            return self._final_totals
        result = totals(self._blueprint.hooks, self._loaded.maps["stats"].items(), self._open_calls())
        if self._ended_at:  # nothing counts any more, and the end of a trace asks several times
            self._final_totals = result
        return result

    def _rejections(self) -> dict[str, int]:
        """How many calls of each probe were not fired, where there were any."""
        if not self._plan.rejected:
            return {}
        return rejections.read(self._loaded.maps[rejections.REJECTED], self._plan.rejected)

    def _open_calls(self) -> dict[int, int]:
        """How many calls of functions are open, by the hook of their entries: those whose thread still runs."""
        alive = cache(runs)
        return {
            hook.index: sum(alive(caller_of(value)) for _, value in self._loaded.maps[f"pair_{hook.index}"].items())
            for hook in self._blueprint.hooks
            if hook.start is not None and hook.matching == "frame"
        }


def _require_any(refused: Sequence[Refusal]) -> None:
    """Raise UnsupportedError where sites were refused, and so none is left."""
    if refused:
        first = refused[0]
        raise UnsupportedError(
            f"the kernel accepts none of the {len(refused)} sites; {first.path}+{first.file_offset:#x}: {first.reason}",
            hint="start the trace again"
            if first.reason == REWRITTEN
            else "some first instructions cannot be probed: try another function",
        )
