"""What a session will load and attach, as it is put together: hooks with their places, event types, tables, maps.

Input: what sources and their actions ask for, one after another. Output: the program and the plan of it, and what
`running` needs to read its results. `definition` adds sources, `sources` add actions. Once the session runs, the
blueprint is sealed: the program in the kernel does not change any more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usdtkit.bpf import program as programs
from usdtkit.bpf.actions import Block
from usdtkit.bpf.statements import SIZES
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.records import dataclass, replace
from usdtkit.trace.aggregations import Filled
from usdtkit.trace.kernelmap import Store
from usdtkit.trace.later import Later, Role
from usdtkit.trace.plan import Planned, planned
from usdtkit.trace.returns import Returns
from usdtkit.trace.specs import Resolved
from usdtkit.trace.threadvalues import ThreadValues
from usdtkit.trace.unseen import UnseenCounts

if TYPE_CHECKING:
    from usdtkit.trace.rows import RowType


@dataclass(frozen=True)
class Settings:
    """How a program runs: the bytes of its ring buffer, the entries of its tables (None: what suits most), how it is
    attached (None: the best way that the kernel has), whether its events come in the order of their time, and whether
    files are attached to that come later (`discovers`), and children of the processes (`follows`). `unwind` is one of
    `model.UNWIND_POLICIES`, and `unwind_memory` the megabytes of its tables."""

    ring_size: int
    capacity: int | None
    method: str | None
    ordered: bool
    discovers: bool
    follows: bool
    unwind: str
    unwind_memory: int


class Blueprint:
    """The parts of one program, each in the order of its numbers."""

    def __init__(self, returns: Returns, string_size: int) -> None:
        """`returns` decides how the returns of functions are seen. `string_size`: bytes read of a string argument."""
        self.returns = returns
        self.hooks: list[programs.Hook] = []
        self._places: list[Resolved] = []  # of each hook
        self.rows: list[RowType | None] = []  # of each event type, the class that its events become
        self.tables: list[Filled] = []
        self.stores: list[Store] = []
        self.threads: list[ThreadValues] = []
        self.absent: list[NotFoundError] = []  # of what is optional
        self.unseen = UnseenCounts()
        self._followed: list[tuple[Role, ...]] = []
        self._string_size = string_size
        self._sealed = ""
        self._hint: str | None = None

    def add_source(self, resolved: Resolved) -> programs.Hook:
        """The hook of a source; that of returns comes after one of the calls, which tells them from others."""
        if resolved.kind != "return":
            return self.add_hook(resolved)
        entered, leaving = self.returns.of(resolved)
        call = self.add_hook(entered)
        call.start, call.matching = {}, "frame"
        hook = self.add_hook(leaving)
        hook.entered = call
        return hook

    def add_hook(self, resolved: Resolved) -> programs.Hook:
        """A new hook at these places."""
        self._check_open()
        resolved = self.returns.entered(resolved)
        hook = programs.Hook(
            len(self.hooks), resolved.what, resolved.kind, os.uname().machine, resolved.arguments, self._string_size
        )
        hook.convention = resolved.convention
        if hook.convention == "go":
            hook.goid_offset = self.returns.goid_offset(resolved)
        self.hooks.append(hook)
        self._places.append(resolved)
        return hook

    def follow(self, *roles: Role) -> None:
        """Search later files for more places of these hooks, which are one source or pair."""
        self._followed.append(roles)

    def later(self) -> Later:
        """What later files are searched for."""
        # A hook whose parts are hooks of their own has no places; see `places`.
        roles = [roles for roles in self._followed if not any(_is_empty(role.hook) for role in roles)]
        return Later(roles, self.returns)

    @property
    def places(self) -> list[Resolved]:
        """The places of each hook: none of a hook without actions whose parts are hooks of their own, because a hit
        would count twice there."""
        return [
            replace(resolved, places=()) if _is_empty(hook) else resolved
            for hook, resolved in zip(self.hooks, self._places, strict=True)
        ]

    def forget_places(self) -> None:
        """Let the files of all places go, once nothing is attached any more."""
        self._places = [replace(resolved, places=(), parts=()) for resolved in self._places]

    def add_event_type(self, row: RowType | None = None) -> int:
        """The number of a new type of events, which become rows of this class."""
        self._check_open()
        self.rows.append(row)
        return len(self.rows) - 1

    def add_table(self, filled: Filled) -> int:
        """The number of a new table in the kernel, which is put into `filled` when it exists."""
        self._check_open()
        self.tables.append(filled)
        return len(self.tables) - 1

    def add_store(self, store: Store) -> None:
        """A new map, whose number is that of the stores before it."""
        self._check_open()
        self.stores.append(store)

    def add_thread_values(self, values: ThreadValues) -> None:
        """New values of threads, whose number is that of those before them."""
        self._check_open()
        self.threads.append(values)

    def add_block(self, hook: programs.Hook, block: Block, *, ahead: bool = False) -> None:
        """One more action of a hook: after all others, or after those that were put `ahead` as well."""
        self._check_open()
        hook.blocks.insert(hook.ahead if ahead else len(hook.blocks), block)
        hook.ahead += ahead

    def seal(self, reason: str, hint: str | None = None) -> None:
        """From now on raise UsageError with this reason when something is added."""
        self._sealed, self._hint = reason, hint

    def program(self) -> programs.Program:
        """The program of all parts. UsageError without an action; NotFoundError where nothing optional was found."""
        if not any(hook.blocks for hook in self.hooks):
            raise UsageError("nothing to do: no source has an action", hint="source.emit(), .count() or .hist(…)")
        self._check_found()
        stores, threads = [store.layout for store in self.stores], [values.layout for values in self.threads]
        program = programs.build(self.hooks, stores, threads)
        for number, row in enumerate(self.rows):
            if row is not None:
                row.check(program.records[number * SIZES].fields)
        return program

    def plan(self, pids: tuple[int, ...]) -> list[Planned]:
        """Every site that would be attached to in these processes."""
        self._check_found()
        return planned(self.hooks, self.places, pids)

    def _check_found(self) -> None:
        if self.absent and not any(resolved.places for resolved in self.places):
            raise self.absent[0]

    def _check_open(self) -> None:
        if self._sealed:
            raise UsageError(self._sealed, hint=self._hint)


def _is_empty(hook: programs.Hook) -> bool:
    """Whether a hook has no actions, and its parts are hooks of their own."""
    return hook.parted and not hook.blocks
