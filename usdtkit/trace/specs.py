"""What to attach to: as a user declares it (`UsdtSpec`, `FunctionSpec`), and as it was found in files (`Resolved`).

Input: names from a user, and the probes and functions that `usdtkit.targets` has found for them. Output: places with
file offsets, for `sources`, `definition` and `plan`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from usdtkit import targets
from usdtkit.errors import UsageError
from usdtkit.files import OpenFile
from usdtkit.model import Argument, Clock, Function, HookKind, Operand, Place, Probe, Site, UserPlace
from usdtkit.naming import apart, name_of, spelled, spelled_path
from usdtkit.records import dataclass, field, replace
from usdtkit.signatures import known_function

MAX_FREQUENCY_HZ = 100_000  # the kernel's timers for samples run no faster


@dataclass(frozen=True, slots=True)
class Resolved:
    """The places of a source, and the arguments that all of them share.

    `what` is the source as a user writes it, for messages. `convention` says how the functions are called, as
    `Function.convention` does; it is "mixed" where they differ. `parts` are the same places by their arguments, where
    those of several probes differ, else empty. `sought` says what was asked for, so that it can be found in other files
    later; None where that cannot be said.
    """

    what: str
    kind: HookKind
    arguments: tuple[Argument, ...]
    places: tuple[Place, ...]
    convention: str = ""
    parts: tuple[Resolved, ...] = ()
    sought: Sought | None = field(default=None, compare=False, repr=False)

    @property
    def user_places(self) -> tuple[UserPlace, ...]:
        """Those of the places that are in files."""
        return tuple(place for place in self.places if isinstance(place, UserPlace))

    def returning(self) -> Resolved:
        """The returns of the functions whose entries these are. `usdtkit.trace.returns` decides how to observe them."""
        return replace(self, kind="return", arguments=())


def check_places(places: Iterable[UserPlace]) -> None:
    """Raise UsageError where a place is in the middle of an instruction: a probe there would change what a program
    does.

    Entries and exits of functions are always the beginning of an instruction, so no file is read for them.
    """
    chosen: dict[OpenFile, set[int]] = {}
    for place in places:
        if place.function is None or (not place.returns and place.file_offset != place.function.file_offset):
            chosen.setdefault(place.opened, set()).add(place.file_offset)
    for file, offsets in chosen.items():
        from usdtkit.elf.image import Image  # most sessions have entries, exits and USDT sites only
        from usdtkit.elf.sites import check

        with Image(file.path, file) as image:
            check(image, *(image.address(offset) for offset in sorted(offsets)))


def convention_of(functions: Iterable[Function]) -> str:
    """How these functions are called, as `Resolved.convention` has it; "" of none."""
    conventions = {function.convention for function in functions}
    return "mixed" if len(conventions) > 1 else next(iter(conventions), "")


@dataclass(frozen=True, slots=True)
class UsdtSpec:
    """A USDT probe by PROVIDER:PROBE, globs allowed: in `path`, or in the files that the session's processes map."""

    name: str
    path: str | None = None


class Sought:
    """What a source is about, by which files that come later are searched.

    Sources that have the same object are alternatives, of which a probe gets the one whose arguments it has. Two
    objects are therefore never equal.
    """

    def __init__(self, specs: Iterable[UsdtSpec | FunctionSpec]) -> None:
        self.specs = tuple(specs)


def sought_probes(probes: Iterable[Probe], path: str | None = None) -> Sought:
    """Probes of these names: everywhere, or in the files that `path` means."""
    return Sought(UsdtSpec(spec, path) for spec in dict.fromkeys(probe.spec for probe in probes))


def resolve_probes(what: str, probes: Sequence[Probe], sought: Sought | None = None) -> Resolved:
    """One source of several probes. Its arguments are those that all of them have.

    `sought` is what they were found by; without it, later files are searched for probes of the same names.
    """
    alike: dict[tuple[Argument, ...], list[Probe]] = {}
    for probe in probes:
        alike.setdefault(probe.arguments, []).append(probe)
    parts = [_resolve(what, same) for same in alike.values()] if len(alike) > 1 else []
    return replace(_resolve(what, probes), parts=tuple(parts), sought=sought or sought_probes(probes))


def _resolve(what: str, probes: Sequence[Probe]) -> Resolved:
    common = [argument for argument in probes[0].arguments if all(argument in probe.arguments for probe in probes)]
    sites = [site for probe in probes for site in probe.sites]
    for index, argument in enumerate(common):
        if not all(_readable(site.operands, argument) for site in sites):
            common[index] = replace(argument, type="unreadable")
    places = tuple(place_of(probe, site) for probe in probes for site in probe.sites)
    return Resolved(what, "usdt", tuple(common), places)


def place_of(probe: Probe, site: Site) -> UserPlace:
    """The place of one site of a probe."""
    return UserPlace(
        *(probe.spec, probe.path, site.file_offset, site.semaphore_offset, site.operands, probe.file),
        rejected_offset=site.rejected_offset,
    )


def _readable(operands: Sequence[Operand], argument: Argument) -> bool:
    """Whether a site has the argument, in one or two operands that a program can read."""
    values = operands[argument.operand :][: argument.width]
    return bool(values) and all(operand.kind != "unreadable" for operand in values)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """The entries, or the returns, of functions of a program or library; globs are allowed.

    `library` is a path, a command on PATH, or a library's short name such as "c". Functions have the names of their
    symbols, or those of the source in C++ and Rust, with or without parameters. A name that contains a wildcard, as
    some of Go's do, is made with `glob.escape`. If several functions of a file have the name, it means all of them, and
    each of their places has a name of its own; NAME@VERSION and NAME@0xADDRESS mean one. `only` says which of the
    functions that are found are meant, where their names alone do not.
    """

    library: str
    functions: tuple[str, ...]
    on_return: bool = False
    only: Callable[[Function], bool] | None = None

    def resolve(self, pids: Sequence[int], functions: Sequence[Function] | None = None) -> Resolved:
        """The places of `functions`, or without these, of those that the processes map; without pids, of those here.

        NotFoundError where there are none.
        """
        if functions is None:
            functions = targets.find_functions(self.library, self.functions, pids=pids)
        return self.of(functions)

    def of(self, functions: Iterable[Function]) -> Resolved:
        """The places of these functions."""
        chosen = self._one_name_each(function for function in functions if self.only is None or self.only(function))
        names = [function.demangled or function.name for function in chosen]
        names = apart(chosen, names, self.functions, current=True)
        return Resolved(
            self.what,
            "return" if self.on_return else "entry",
            self.arguments_of(function.name for function in chosen),
            tuple(
                UserPlace(name, function.path, function.file_offset, file=function.file, function=function)
                for function, name in zip(chosen, names, strict=True)
            ),
            convention_of(chosen),
            sought=Sought([self]),
        )

    @property
    def what(self) -> str:
        """The spec as a user writes it."""
        return f"{spelled_path(self.library)}:{','.join(map(spelled, self.functions))}"

    def arguments_of(self, names: Iterable[str]) -> tuple[Argument, ...]:
        """The arguments of the functions with these names, where `usdtkit.signatures` knows the same ones for all."""
        signatures = {known_function(self.library, name) for name in names}
        known = signatures.pop() if len(signatures) == 1 and not self.on_return else None
        return tuple(Argument(name, type, index) for index, (name, type) in enumerate(known or ()))

    def _one_name_each(self, functions: Iterable[Function]) -> list[Function]:
        """One function for each address, because a call must be counted once and not once for each name.

        A name that was asked for comes first, then one that looks public.
        """
        chosen: dict[tuple[OpenFile | str, int], Function] = {}
        asked = set(map(name_of, self.functions))
        for function in sorted(functions, key=lambda f: (f.name not in asked, f.name.startswith("_"), f.name)):
            chosen.setdefault((function.file or function.path, function.file_offset), function)
        return list(chosen.values())

    def returning(self) -> FunctionSpec:
        """The same functions' returns."""
        return replace(self, on_return=True)


Spec = UsdtSpec | FunctionSpec | Clock
StrPath = str | os.PathLike[str]


def usdt(name: str, path: StrPath | None = None) -> UsdtSpec:
    """A USDT probe: "PROVIDER:PROBE", globs allowed."""
    if ":" not in name:
        raise UsageError(
            f"{name!r} does not name a probe",
            hint="PROVIDER:PROBE, such as mysql:query__start; usdtkit list shows them",
        )
    return UsdtSpec(name, None if path is None else os.fspath(path))


def uprobe(library: StrPath, *functions: str) -> FunctionSpec:
    """The entry of functions: uprobe("c", "getaddrinfo", "gethostby*"), or uprobe("c:getaddrinfo").

    Also by their names in C++ or Rust: uprobe("shopd", "shop::Cart::add(int)"), uprobe("shopd", "shop::Cart::*").
    """
    return _function(library, functions, on_return=False)


def uretprobe(library: StrPath, *functions: str) -> FunctionSpec:
    """The return of functions, as `uprobe`."""
    return _function(library, functions, on_return=True)


def clock(frequency_hz: int = 99) -> Clock:
    """Samples of what runs in user mode: `frequency_hz` (1 to 100,000) for each second of CPU time.

    The processes of the session are sampled with all of their threads, and without any, every processor is. A sample
    has the usual values (`pid`, `tid`, `comm`, `cpu`, `ip`, `ustack`, …) and no arguments. Time in the kernel gives
    no samples: system calls, page faults, waiting.

    A count divided by `frequency_hz` is CPU time in seconds. With processes, each thread has a clock of its own, whose
    last period is not complete when the thread ends: a thread that runs for less than a period (10 ms at 99 Hz) in all
    is not seen. A program that does something 100 times a second would run in step with a clock of 100 Hz, which is why
    99 is usual.

        with trace.Session(pid=1234, duration=10) as session:
            stacks = session.source(clock(99)).count("ustack")
            for _ in session.intervals():
                print(stacks.top(10))

    UsageError of another frequency; a session raises it at its start where the kernel allows less
    (kernel.perf_event_max_sample_rate).
    """
    if not 1 <= frequency_hz <= MAX_FREQUENCY_HZ:
        raise UsageError(f"a clock of {frequency_hz} Hz", hint=f"from 1 to {MAX_FREQUENCY_HZ}")
    return Clock(frequency_hz)


def resolve_clock(clock: Clock) -> Resolved:
    """A clock as a source, which needs to be found nowhere."""
    return Resolved(clock.name, "clock", (), (clock,))


def _function(library: StrPath, functions: tuple[str, ...], *, on_return: bool) -> FunctionSpec:
    library = os.fspath(library)
    if not functions:
        library, _, function = library.partition(":")
        functions = (function,)
    if not library or not all(functions):
        raise UsageError("a uprobe needs a library or program, and a function", hint='uprobe("c", "getaddrinfo")')
    return FunctionSpec(library, functions, on_return)
