"""How the returns of functions are observed: by probes on the instructions with which they leave, or by return probes.

Input: functions' entries (`specs.Resolved`), and the processes of the session. Output: the places of their entries and
of their returns, for `definition`. `usdtkit.elf.exits` finds where a function leaves, and `usdtkit.elf.unwinding` what
the code of a file may do besides returning.

A return probe of the kernel replaces the function's return address by the address of a trampoline. While it is there,
no exception can pass through the function, no cancelled thread can run its cleanup handlers, and a coroutine that is
resumed may return into another one: the program dies. A probe on the exits changes nothing that the program can notice,
but it costs more, because the kernel executes the `ret` out of line, which takes a second trap. Therefore return probes
are used only where the program cannot notice them:

- a function that calls nothing, where no signal can end it at any instruction: it can be left by its return only
- a function that is known to be left by its return only (`signatures.returns_only`), such as malloc
- the functions of a given process's own program, if none of the files that it maps can leave a function in another way
  or switch stacks

The last does not hold for libraries. Where a uprobe_multi link has a return probe, the kernel replaces the return
address in every process that has a breakpoint there, even if the link is for one process only and the breakpoint is
another tool's. A return probe in a library would so reach programs that throw exceptions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from usdtkit import targets
from usdtkit.bpf.cookie import EXIT_IS_BRANCH, EXIT_IS_SHARED, EXIT_LACKS_VALUE
from usdtkit.elf.image import Image
from usdtkit.elf.unwinding import RETURNS_TWICE, may_end_anywhere, may_leave
from usdtkit.errors import UnsupportedError, UsageError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.model import RETURN_POLICIES, UserPlace
from usdtkit.records import replace
from usdtkit.signatures import returns_only
from usdtkit.trace.specs import Resolved, convention_of

if TYPE_CHECKING:
    from usdtkit.elf.exits import Exit, ExitFinder, Exits
    from usdtkit.model import Function


class Returns:
    """Decides for the functions of one session."""

    def __init__(self, policy: str, pids: Sequence[int]) -> None:
        """`policy`: one of RETURN_POLICIES. `pids`: the processes that are traced; () for a command, or for all."""
        if policy not in RETURN_POLICIES:
            raise UsageError(f"{policy!r} is not a way to see returns", hint=f"one of {', '.join(RETURN_POLICIES)}")
        self._policy = policy
        self._pids = pids
        self._harmless: str | None = None  # why return probes harm nothing in these processes; None before the search
        self._programs: list[OpenFile] = []  # the programs of these processes, if so
        # Why a signal may end a function, by file; for all files of the processes, where there are `pids`, by None.
        self._interrupted: dict[OpenFile | None, str] = {}

    def of(self, entered: Resolved) -> tuple[Resolved, Resolved]:
        """The entries and the returns of the functions whose returns can be observed.

        Others are left out with a warning. UnsupportedError where none remains.
        """
        entries: list[UserPlace] = []
        exits: list[UserPlace] = []
        refused: list[UsdtkitError] = []
        finders: dict[OpenFile, _FileExits] = {}
        for place in entered.user_places:
            file = place.opened
            finder = finders.get(file) or finders.setdefault(file, _FileExits(file))
            try:
                entry, leaving = self._one(place, finder)
            except UnsupportedError as error:
                refused.append(error)
                continue
            entries.append(entry)
            exits += leaving
        if refused and not entries:
            raise refused[0]
        if refused:
            import logging

            others = f" (and {len(refused) - 1} more functions)" if len(refused) > 1 else ""
            logging.getLogger(__name__).warning("left out: %s%s", refused[0].message, others)
        if refused:  # those that are left may all be called in one way
            left = [place.function for place in entries if place.function is not None]
            entered = replace(entered, convention=convention_of(left))
        return (
            replace(entered, kind="entry", places=tuple(entries)),
            replace(entered, kind="return", arguments=(), places=tuple(exits)),
        )

    def entered(self, resolved: Resolved) -> Resolved:
        """Entries at which each call of a function is hit once.

        Those of Go's functions are not their first instructions, which run again after the stack has grown.
        """
        if resolved.kind != "entry" or not any(_is_entry_of_go(place) for place in resolved.user_places):
            return resolved
        finders: dict[OpenFile, _FileExits] = {}
        places = []
        for place in resolved.user_places:
            if _is_entry_of_go(place) and place.function is not None:
                finder = finders.setdefault(place.opened, _FileExits(place.opened))
                with contextlib.suppress(UnsupportedError):  # such as assembler code, which keeps its first instruction
                    place = replace(place, file_offset=finder.find(place.function).entry)
            places.append(place)
        return replace(resolved, places=tuple(places))

    def goid_offset(self, resolved: Resolved) -> int:
        """Where Go's descriptor of a goroutine has its number: one offset for all files of these functions, or 0."""
        from usdtkit.elf.golang import goid_offset

        offsets = {goid_offset(Image(file.path, file)) for file in {place.opened for place in resolved.user_places}}
        return offsets.pop() if len(offsets) == 1 else 0

    def _one(self, place: UserPlace, finder: _FileExits) -> tuple[UserPlace, list[UserPlace]]:
        function = place.function
        if function is None:
            raise UnsupportedError(f"{place.name}: only a whole function has a return", hint="name the function alone")
        if function.name in RETURNS_TWICE:
            raise UnsupportedError(
                f"{place.name} returns twice, and its second return cannot be told from others",
                hint="trace its entry, and that of longjmp or setcontext",
            )
        is_go = function.is_go
        if self._policy == "probes":
            if is_go:
                raise UnsupportedError(
                    f"{place.path} is a Go program: Go moves its stacks, and a return probe's address on one of them "
                    "would crash it",
                    hint="--returns=sites, or auto",
                )
            return _probed(place, "asked for")
        if self._policy == "auto" and returns_only(place.path, function.name):
            return _probed(place, "it is known to end only by returning")
        try:
            exits = finder.find(function)
        except UnsupportedError as error:
            if self._policy == "auto" and not is_go and (why := self._why_harmless(place.opened)):
                return _probed(place, f"{why}; its exits are not known: {error.message}")
            raise
        if self._policy == "auto" and not is_go:
            if why := self._why_harmless(place.opened):
                return _probed(place, why)
            interrupted = self._why_interrupted(place.opened) if exits.is_leaf else ""
            if exits.is_leaf and not interrupted:
                return _probed(place, "it calls nothing, so it can only end by returning")
            why = interrupted or "exceptions, cancellation or coroutines may leave it"
        else:
            why = (
                "asked for"
                if self._policy == "sites"
                else "it is a Go function, where return probes would crash the program"
            )
        leaving = [self._exit(place, exit, why) for exit in exits.sites]
        shared = any(exit.shared for exit in exits.sites) * EXIT_IS_SHARED
        return replace(place, file_offset=exits.entry, returns="sites", why=why, flags=shared), leaving

    def _exit(self, place: UserPlace, exit: Exit, why: str) -> UserPlace:
        flags = exit.shared * EXIT_IS_SHARED
        if self._policy == "auto" and exit.kind == "jump" and _ends_safely(exit.to):
            why = f"it continues in {exit.to}, which can only end by returning"
            return replace(place, file_offset=exit.file_offset, returns="tail", why=why, flags=flags)
        if not exit.final:
            why += f"; its time is measured until it jumps to {exit.to}, and its return value is not known there"
        flags |= exit.condition | (exit.kind == "branch") * EXIT_IS_BRANCH | (not exit.final) * EXIT_LACKS_VALUE
        return replace(place, file_offset=exit.file_offset, returns="sites", why=why, flags=flags)

    def _why_interrupted(self, file: OpenFile) -> str:
        """Why a signal may end a function of this file at any instruction; "" where none can.

        All files of the traced processes are asked; without pids, only this file can be.
        """
        key = None if self._pids else file
        if key not in self._interrupted:
            files = _mapped(self._pids) if self._pids else [file]
            try:
                why = may_end_anywhere(Image(mapped.path, mapped) for mapped in files)
            except UsdtkitError as error:
                why = error.message
            self._interrupted[key] = why
        return self._interrupted[key]

    def _why_harmless(self, file: OpenFile) -> str:
        """Why the functions of this file can be left by their return only; "" where that is not certain.

        It never is for libraries, because other processes map them too.
        """
        if self._harmless is None:
            self._harmless = _why_harmless(self._pids) if self._pids else ""
            self._programs = _programs(self._pids) if self._harmless else []
        return self._harmless if file in self._programs else ""


class _FileExits:
    """The exits of one file's functions. The file is read at the first question."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._image: Image | None = None
        self._finder: ExitFinder | None = None

    def find(self, function: Function) -> Exits:
        """The instructions with which the function leaves. UnsupportedError where they cannot be known."""
        from usdtkit.elf import openssl  # only needed where returns are observed by sites
        from usdtkit.elf.exits import ExitFinder

        if self._finder is None or self._image is None:
            self._image = Image(self._file.path, self._file)
            self._finder = ExitFinder(self._image)
        into = openssl.handshakes(self._image, self._finder) if function.name in openssl.SHAKES_HANDS else ()
        return self._finder.find(function, into)


def _is_entry_of_go(place: UserPlace) -> bool:
    function = place.function
    return function is not None and function.is_go and place.file_offset == function.file_offset


def _ends_safely(name: str) -> bool:
    """Whether a function that is jumped to is left by its return only: malloc and its like, and operator delete."""
    return name.startswith(("_ZdlPv", "_ZdaPv")) or returns_only("c", name)


def _probed(place: UserPlace, why: str) -> tuple[UserPlace, list[UserPlace]]:
    probed = replace(place, returns="probes", why=why)
    return probed, [probed]


def _mapped(pids: Sequence[int]) -> Iterator[OpenFile]:
    """The files that the processes map. UsdtkitError where a process cannot be inspected."""
    for target in targets.mapped_by(pids):
        yield from targets.open_target(target)


def _why_harmless(pids: Sequence[int]) -> str:
    try:
        if any(may_leave(Image(file.path, file)) for file in _mapped(pids)):
            return ""
    except UsdtkitError:
        return ""
    which = f"process {pids[0]}" if len(pids) == 1 else "these processes"
    return f"no code in {which} can leave a function in another way or switch stacks"


def _programs(pids: Sequence[int]) -> list[OpenFile]:
    """The programs that the processes run, without those that cannot be opened."""
    programs = []
    for pid in pids:
        with contextlib.suppress(UsdtkitError):
            programs.append(OpenFile.open(f"/proc/{pid}/exe"))
    return programs
