"""How the returns of functions are seen: by probes on the instructions with which they leave, or by return probes.

Input: functions' entries (`specs.Resolved`), and the processes of the session. Output: the places of their entries and
of their returns, for `definition`. Stands on `usdtkit.elf.exits`, which finds where a function leaves, and on
`usdtkit.elf.unwinding`, which tells what the code of a file may do besides returning.

A return probe of the kernel puts the address of a trampoline where the function's return address was. While it lies
there no exception can pass through the function, no cancelled thread can run its cleanup handlers, and a coroutine that
is resumed may return into another one: the program dies. A probe on the exits changes nothing that the program can see,
but it costs more, because the kernel executes the `ret` in a place of its own, which takes a second trap. So return
probes are only taken where the program cannot notice them:

- a function that calls nothing, where no signal may end it at any instruction: else it can only be left by its return;
- a function of the C library that calls nothing back and is not left in another way, such as malloc;
- the functions of a given process's own program, if in none of its files anything can leave a function otherwise, or
  switch stacks. Those of a library are another matter: where one link of many uprobes (uprobe_multi) has a return
  probe, the kernel takes the return address in every process that has a breakpoint there, even if the link is of one
  process only, and the breakpoint another tool's. So a return probe in a library would reach programs that throw.
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
from usdtkit.trace.specs import Resolved

if TYPE_CHECKING:
    from usdtkit.elf.exits import Exit, ExitFinder, Exits
    from usdtkit.model import Function


class Returns:
    """Decides for the functions of one session."""

    def __init__(self, policy: str, pids: Sequence[int]) -> None:
        """`policy`: one of RETURN_POLICIES. `pids`: the processes that are traced; () of others, or of all."""
        if policy not in RETURN_POLICIES:
            raise UsageError(f"{policy!r} is no way to see returns", hint=f"one of {', '.join(RETURN_POLICIES)}")
        self._policy = policy
        self._pids = pids
        self._harmless: str | None = None  # why nothing in these processes can be harmed, once it was looked for
        self._programs: list[OpenFile] = []  # what these processes run, if so
        self._interrupted: dict[OpenFile | None, str] = {}  # why a signal may end a function: in a file, or in `pids`

    def of(self, entered: Resolved) -> tuple[Resolved, Resolved]:
        """The entries, and the returns, of functions whose returns can be seen; the others are left out with a warning.

        UnsupportedError where none is left.
        """
        entries: list[UserPlace] = []
        exits: list[UserPlace] = []
        refused: list[UsdtkitError] = []
        finders: dict[OpenFile, _Finder] = {}
        for place in entered.places:
            file = place.opened
            finder = finders.get(file) or finders.setdefault(file, _Finder(file))
            try:
                own, leaving = self._one(place, finder)
            except UnsupportedError as error:
                refused.append(error)
                continue
            entries.append(own)
            exits += leaving
        if refused and not entries:
            raise refused[0]
        if refused:
            import logging

            more = f" (and {len(refused) - 1} more functions)" if len(refused) > 1 else ""
            logging.getLogger(__name__).warning("left out: %s%s", refused[0].message, more)
        return (
            replace(entered, kind="entry", places=tuple(entries)),
            replace(entered, kind="return", arguments=(), places=tuple(exits)),
        )

    def entered(self, resolved: Resolved) -> Resolved:
        """Entries where each call of a function is counted once: those of Go's are not its first instructions, which
        run again when the stack has grown."""
        if resolved.kind != "entry" or not any(_is_entry_of_go(place) for place in resolved.places):
            return resolved
        finders: dict[OpenFile, _Finder] = {}
        places = []
        for place in resolved.places:
            if _is_entry_of_go(place) and place.function is not None:
                finder = finders.setdefault(place.opened, _Finder(place.opened))
                with contextlib.suppress(UnsupportedError):  # assembler code, say, whose entry is its first instruction
                    place = replace(place, file_offset=finder.find(place.function).entry)
            places.append(place)
        return replace(resolved, places=tuple(places))

    def goid_offset(self, resolved: Resolved) -> int:
        """Where Go's descriptor of a goroutine has its number, in all files of these functions; 0 where unknown."""
        from usdtkit.elf.golang import goid_offset

        found = {goid_offset(Image(file.path, file)) for file in {place.opened for place in resolved.places}}
        return found.pop() if len(found) == 1 else 0

    def _one(self, place: UserPlace, finder: _Finder) -> tuple[UserPlace, list[UserPlace]]:
        function = place.function
        if function is None:
            raise UnsupportedError(f"{place.name}: only a whole function has a return", hint="name the function alone")
        if function.name in RETURNS_TWICE:
            raise UnsupportedError(
                f"{place.name} returns twice, and its second return cannot be told from others",
                hint="trace its entry, and that of longjmp or setcontext",
            )
        is_go = function.convention == "go"
        if self._policy == "probes":
            if is_go:
                raise UnsupportedError(
                    f"{place.path} is a Go program: Go moves its stacks, and a return probe's address on one of them "
                    "would crash it",
                    hint="--returns=sites, or auto",
                )
            return _probed(place, "asked for")
        if self._policy == "auto" and returns_only(place.path, function.name):
            return _probed(place, "known to be left by its return only")
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
                return _probed(place, "calls nothing, so that it is only left by its return")
            why = interrupted or "exceptions, cancellation or coroutines may leave it"
        else:
            why = "asked for" if self._policy == "sites" else "it is Go's, where return probes would end the program"
        leaving = [self._exit(place, exit, why) for exit in exits.sites]
        shared = any(exit.shared for exit in exits.sites) * EXIT_IS_SHARED
        return replace(place, file_offset=exits.entry, returns="sites", why=why, flags=shared), leaving

    def _exit(self, place: UserPlace, exit: Exit, why: str) -> UserPlace:
        flags = exit.shared * EXIT_IS_SHARED
        if self._policy == "auto" and exit.kind == "jump" and _ends_safely(exit.to):
            why = f"goes on in {exit.to}, which is only left by its return"
            return replace(place, file_offset=exit.file_offset, returns="tail", why=why, flags=flags)
        if not exit.final:
            why += f"; its time ends where it goes on in {exit.to}, and its return value is not known there"
        flags |= exit.condition | (exit.kind == "branch") * EXIT_IS_BRANCH | (not exit.final) * EXIT_LACKS_VALUE
        return replace(place, file_offset=exit.file_offset, returns="sites", why=why, flags=flags)

    def _why_interrupted(self, file: OpenFile) -> str:
        """Why a signal may end a function of this file anywhere in the traced processes; of other processes, what the
        file itself says."""
        key = None if self._pids else file
        if key not in self._interrupted:
            files = _mapped(self._pids) if self._pids else [file]
            try:
                why = may_end_anywhere(Image(each.path, each) for each in files)
            except UsdtkitError as error:
                why = error.message
            self._interrupted[key] = why
        return self._interrupted[key]

    def _why_harmless(self, file: OpenFile) -> str:
        """Why no function of this file can be left but by its return, in whichever process; "" where that is not
        certain, as of libraries, which others map."""
        if self._harmless is None:
            self._harmless = _why_harmless(self._pids) if self._pids else ""
            self._programs = _programs(self._pids) if self._harmless else []
        return self._harmless if file in self._programs else ""


class _Finder:
    """The exits of one file's functions. The file is read when it is first asked about."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._image: Image | None = None
        self._finder: ExitFinder | None = None

    def find(self, function: Function) -> Exits:
        """Where the function leaves. UnsupportedError where that cannot be known."""
        from usdtkit.elf import openssl  # imported only where returns are traced by their sites
        from usdtkit.elf.exits import ExitFinder

        if self._finder is None or self._image is None:
            self._image = Image(self._file.path, self._file)
            self._finder = ExitFinder(self._image)
        into = openssl.handshakes(self._image, self._finder) if function.name in openssl.SHAKES_HANDS else ()
        return self._finder.find(function, into)


def _is_entry_of_go(place: UserPlace) -> bool:
    function = place.function
    return function is not None and function.convention == "go" and place.file_offset == function.file_offset


def _ends_safely(name: str) -> bool:
    """Whether the function that is jumped to is only left by its return: malloc and the like, and operator delete."""
    return name.startswith(("_ZdlPv", "_ZdaPv")) or returns_only("c", name)


def _probed(place: UserPlace, why: str) -> tuple[UserPlace, list[UserPlace]]:
    probed = replace(place, returns="probes", why=why)
    return probed, [probed]


def _mapped(pids: Sequence[int]) -> Iterator[OpenFile]:
    """The files that the processes map. UsdtkitError where one of them cannot be looked at."""
    for target in targets.mapped_by(pids):
        yield from targets.open_target(target)


def _why_harmless(pids: Sequence[int]) -> str:
    try:
        if any(may_leave(Image(file.path, file)) for file in _mapped(pids)):
            return ""
    except UsdtkitError:
        return ""
    which = f"process {pids[0]}" if len(pids) == 1 else "these processes"
    return f"no code in {which} can leave a function otherwise or switch stacks"


def _programs(pids: Sequence[int]) -> list[OpenFile]:
    """The programs that the processes run, without those that cannot be opened."""
    found = []
    for pid in pids:
        with contextlib.suppress(UsdtkitError):
            found.append(OpenFile.open(f"/proc/{pid}/exe"))
    return found
