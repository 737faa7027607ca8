"""What a session is asked to trace: the names of probes and functions → sources and pairs, which take actions.

Input: specs, and the values that a pair keeps from its start to its end. Output: a `blueprint`, whose program can be
compiled and whose plan can be read. Nothing is loaded or attached here: `session` does that. `finding` finds the probes
and functions by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from usdtkit.bpf import expressions as ex
from usdtkit.bpf import program as programs
from usdtkit.bpf.pairs import MOST_NESTING, NESTING, Matching
from usdtkit.elf.symbols import Pattern
from usdtkit.errors import NotFoundError, UsageError
from usdtkit.model import Clock, Function, HookKind, Probe
from usdtkit.processes import below
from usdtkit.resolve import describe, processes_of
from usdtkit.trace.blueprint import Blueprint
from usdtkit.trace.fields import as_value, both
from usdtkit.trace.finding import Finder, Signatures, ThisMachine
from usdtkit.trace.kernelmap import MAX_CAPACITY, USUAL_CAPACITY, KernelMap, Kind, Store
from usdtkit.trace.later import Role
from usdtkit.trace.plan import Planned
from usdtkit.trace.returns import Returns
from usdtkit.trace.sources import Keep, Key, Pair, Source, kept_fields
from usdtkit.trace.specs import (
    FunctionSpec,
    Resolved,
    Sought,
    Spec,
    StrPath,
    UsdtSpec,
    check_places,
    resolve_clock,
    resolve_probes,
    uprobe,
    uretprobe,
    usdt,
)
from usdtkit.trace.threadvalues import ThreadKind, ThreadValues, layout_of


class Definition:
    """What a session traces in the processes `pid`, in a `command` that will be started, or in all processes.

    `string_size`: bytes read of a string argument. `capacity`: how many entries each of its tables can hold; None
    leaves each at its usual size. `returns`: how the returns of functions are seen, one of
    `usdtkit.model.RETURN_POLICIES`. `offline`: nothing on this machine is inspected; sources come from
    `usdtkit.signatures`, and the first `lacking` searches find nothing. `follow`: the children of the processes are
    traced as well.
    """

    def __init__(
        self,
        *,
        pid: int | str | Iterable[int | str] | None = None,
        command: Sequence[str] | None = None,
        string_size: int = 128,
        capacity: int | None = None,
        returns: str = "auto",
        offline: bool = False,
        lacking: int = 0,
        follow: bool = False,
    ) -> None:
        if not 1 <= string_size <= ex.MAX_STRING:
            raise UsageError(f"strings cannot be read with {string_size} bytes", hint=f"from 1 to {ex.MAX_STRING}")
        if pid is not None and command is not None:
            raise UsageError("a session traces processes, or a command, not both")
        if capacity is not None and not 1 <= capacity <= MAX_CAPACITY:
            raise UsageError(f"tables cannot have a capacity of {capacity} entries", hint=f"from 1 to {MAX_CAPACITY}")
        self.offline = offline
        """Whether nothing on this machine is inspected."""
        self._remarks: list[str] = []
        self.pids = () if pid is None else self._pids((pid,) if isinstance(pid, (int, str)) else pid)
        if pid is not None and not self.pids:
            raise UsageError("an empty list of processes to trace", hint="None traces all processes")
        if follow:
            self.pids = tuple(dict.fromkeys([*self.pids, *(child for own in self.pids for child in below(own))]))
        self.search_pids = self.pids
        """The processes whose files are searched: not that of a command, which maps none of its files yet."""
        self.command = () if command is None else tuple(command)
        """The words of the command that will be started, or ()."""
        self._program = None if command is None or offline else _program(command)
        self._capacity = capacity
        self._finder: Finder = Signatures(lacking) if offline else ThisMachine(self.search_pids, self._program)
        # What a child does may differ from what is known of its parent.
        self._blueprint = Blueprint(Returns(returns, () if follow else self.pids), string_size)
        self._narrowed: ex.Expression | None = None  # for all sources that are made from now on
        self.missing: list[UsdtSpec | FunctionSpec] = []
        """What was looked for in vain."""
        self.on_remark: Callable[[str], object] | None = None
        """Called with each sentence that `remark` adds from now on: a trace that runs may find something out."""

    def _pids(self, words: Iterable[int | str]) -> tuple[int, ...]:
        """The processes of numbers and names, each once: one that is attached to twice would be counted twice."""
        pids: dict[int, None] = {}
        for word in words:
            if isinstance(word, int) or self.offline:
                pids[word if isinstance(word, int) else 1] = None
                continue
            found = processes_of(word)
            pids |= dict.fromkeys(found)
            if not word.isdecimal():
                self._remarks.append(f"{word} means {describe(found)}")
        return tuple(pids)

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
        hook = self._blueprint.add_source(resolved)
        self._blueprint.follow(Role.of(resolved, hook, hook.call))
        return Source(self._blueprint, resolved, hook, self._narrowed)

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
        than `nesting` shows that the ends of those before it will not come: these are abandoned, and counted as such.

        `keep` names what is read at the start and can be used at the end: names of arguments, or name → expression.
        """
        if not 1 <= nesting <= MOST_NESTING:
            raise UsageError(f"a pair cannot have a nesting of {nesting}", hint=f"from 1 to {MOST_NESTING}")
        blueprint, first = self._blueprint, self.resolve(start)
        is_call = end is None or (isinstance(start, FunctionSpec) and not start.on_return and end == start.returning())
        if is_call and first.kind != "entry":
            raise UsageError(f"a pair that starts with {first.what} needs its end", hint="session.pair(start, end)")
        asked = first
        if end is None or is_call:
            first, second = blueprint.returns.of(first)
        else:
            second = self.resolve(end)
        if "clock" in (first.kind, second.kind):
            side = first if first.kind == "clock" else second
            raise UsageError(
                f"{side.what}: a sample of a clock neither begins nor ends anything",
                hint="session.source(clock(…)), with actions of its own",
            )
        matching: Matching = "key" if key is not None else "frame" if is_call else "nesting"
        keys = key if isinstance(key, tuple) else (key, key)
        start_hook = blueprint.add_source(first)
        end_hook = blueprint.add_hook(second) if is_call else blueprint.add_source(second)
        start_hook.nesting = nesting
        for hook, value in zip((start_hook, end_hook), keys, strict=True):
            hook.matching, hook.key = matching, None if value is None else as_value(value)
        start_hook.start = kept_fields(keep)
        end_hook.after = start_hook
        if is_call:
            blueprint.follow(Role.of(asked, end_hook, start_hook))
        else:
            blueprint.follow(Role.of(first, start_hook, start_hook.call), Role.of(second, end_hook, end_hook.call))
        start_source = Source(blueprint, first, start_hook, self._narrowed)
        return Pair(blueprint, second, start_source, end_hook, self._narrowed)

    def map(self, *, capacity: int | None = None, **fields: Kind) -> KernelMap:
        """A map in the kernel, from numbers such as addresses to `fields` (kinds "u64", "i64" or "stack"), which its
        sources' `put` and `delete` keep. It holds `capacity` entries; None is the capacity of the session's tables,
        or 10,240."""
        capacity = (self._capacity or USUAL_CAPACITY) if capacity is None else capacity
        store = Store(len(self._blueprint.stores), capacity, fields)
        self._blueprint.add_store(store)
        return KernelMap(store)

    def thread_values(self, **fields: ThreadKind) -> ThreadValues:
        """Values that each thread has: numbers ("u64" or "i64"), and texts of so many bytes. Sources `assign` them, at
        hits of the thread, and actions at its later hits can ask for them. The values of a thread end with it."""
        values = ThreadValues(len(self._blueprint.threads), layout_of(fields))
        self._blueprint.add_thread_values(values)
        return values

    def narrow(self, condition: ex.Expression) -> None:
        """Limit every source and pair that is made from now on to the hits for which `condition` is true.

        For a pair, the condition is decided at its end, so it may ask for `latency`. Every start begins a pair, even
        one whose own actions the condition excludes. Entries are deleted from maps at every hit, whether or not the
        condition holds, because otherwise they would stay.
        """
        self._narrowed = both(self._narrowed, condition)

    def find_probes(self, name: str, path: str | None = None) -> list[Probe]:
        """The probes of that name (globs allowed) in `path`, else in what the session traces. NotFoundError."""
        try:
            return self._finder.probes(name, path)
        except NotFoundError:
            self.missing.append(UsdtSpec(name, path))
            raise

    def find_functions(self, library: str, patterns: Sequence[Pattern]) -> list[Function]:
        """The functions of a library that match any of the patterns, in what the session traces. NotFoundError.

        Where they are in the program itself, or in several files, `remarks` says so.
        """
        try:
            return self._finder.functions(library, patterns)
        except NotFoundError:
            names = tuple(pattern for pattern in patterns if isinstance(pattern, str))
            self.missing += [FunctionSpec(library, names or ("*",))]
            raise

    def resolve(self, spec: Spec | Resolved) -> Resolved:
        """Where a spec leads in what the session traces. NotFoundError; UsageError of a place within an instruction."""
        if isinstance(spec, Resolved):
            if spec.kind != "usdt":  # whose sites are said by its file
                check_places(spec.user_places)
            return spec
        if isinstance(spec, Clock):
            return resolve_clock(spec)
        if isinstance(spec, UsdtSpec):
            return resolve_probes(spec.name, self.find_probes(spec.name, spec.path), Sought([spec]))
        try:
            return self._finder.places(spec)
        except NotFoundError:
            self.missing.append(spec)
            raise

    def optional(self, spec: FunctionSpec) -> Resolved:
        """As `resolve`, for functions that some builds of a library have: no places where there are none.

        A session in which nothing was found at all does not start: it raises the NotFoundError of the first.
        """
        try:
            return self.resolve(spec)
        except NotFoundError as error:
            self._blueprint.absent.append(error)
            kind: HookKind = "return" if spec.on_return else "entry"
            return Resolved(spec.what, kind, spec.arguments_of(spec.functions), (), sought=Sought([spec]))

    def remark(self, text: str) -> None:
        """Add a sentence for the user of the trace. The command line shows it when the trace starts."""
        if text not in self._remarks:
            self._remarks.append(text)
            if self.on_remark is not None:
                self.on_remark(text)

    def count_unseen(self, what: str, why: str, counter: Callable[[], int]) -> None:
        """Say in the account how often there was something that the trace does not show, in the words of
        `Source.count_unseen`. `counter` returns how many there were until now."""
        self._blueprint.unseen.add(what, why, counter)

    @property
    def remarks(self) -> list[str]:
        """Sentences for the user of the trace: those that `remark` was given, and those that say where functions were
        found."""
        return [*self._remarks, *self._finder.remarks()]

    def program(self) -> programs.Program:
        """The program of the sources so far, as it would be compiled.

        UsageError where no source has an action; NotFoundError where nothing of all that is `optional` was found.
        """
        return self._blueprint.program()

    def plan(self) -> list[Planned]:
        """Every site that `start` would attach to, and nothing attached."""
        return self._blueprint.plan(self.pids)


def _program(command: Sequence[str]) -> str:
    """The file that a command runs."""
    from usdtkit.trace.command import find_program  # lazy: most sessions start no command

    return os.path.realpath(find_program(command))
