"""Functions by the name of their library, wherever they were linked to: names in, functions and remarks out.

Stands on `usdtkit.targets`, which finds the library itself; used by `usdtkit.trace`. A program that is linked
statically has no libc, Node contains OpenSSL, a program with an allocator of its own never calls libc's, and each
container has a libc of its own. A user who asks for the functions of a library means all of these. Remarks say which
functions were found elsewhere, and which could not be found.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH110

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from usdtkit import libraries, targets
from usdtkit.elf import symbols
from usdtkit.elf.constants import PT_INTERP
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError
from usdtkit.files import FileKey
from usdtkit.model import Function, Target
from usdtkit.naming import name_of
from usdtkit.records import NamedTuple
from usdtkit.scan import file_key
from usdtkit.signatures import knows_library

_SHOWN = 5  # files of a name, in a remark
_FRESH_S = 0.5
_latest: tuple[float, list[Target], list[Target]] = (-_FRESH_S, [], [])


class Remark(NamedTuple):
    """A sentence about some functions: `before`, their names, `after`. Remarks that differ only in names are joined."""

    before: str
    names: tuple[str, ...] = ()
    after: str = ""

    @property
    def text(self) -> str:
        """The sentence."""
        return f"{self.before}{', '.join(self.names)}{self.after}"


class Found(NamedTuple):
    """The functions, and what their user should know about where they are. `missing` is the error if there are
    none."""

    functions: list[Function]
    remarks: list[Remark]
    missing: NotFoundError | None = None


def find(
    library: str, patterns: Sequence[symbols.Pattern], *, pids: Sequence[int] = (), program: str | None = None
) -> Found:
    """Return the functions of `library` that match, as `targets.find_functions` does, and those of the same library
    that lie elsewhere: in the programs that the processes `pids` run, or in the one that will be started as `program`;
    without both, in everything that runs.
    """
    search = _Search(library, patterns)
    if "/" in library:
        search.in_library(pids)
    elif pids:
        search.in_processes(pids)
    elif program is not None and _is_elf(program):
        search.in_command(program)
    else:
        search.everywhere()
    return search.found()


def namesakes(traced: Iterable[tuple[str, str]], pids: Sequence[int]) -> list[Remark]:
    """Return remarks about other files of the processes that export traced functions of the C library.

    `traced` are pairs of the path of the traced file and a function's name. The processes call the function in the
    other file if that was loaded first, such as the malloc of a preloaded allocator.
    """
    names_traced = dict.fromkeys(name for _, name in traced)
    keys_traced = {file_key(path) for path, _ in traced}
    remarks = []
    for target in targets.mapped_by(pids):
        if target.key in keys_traced:
            continue
        try:
            exported = [each for image in targets.images(target) for each in symbols.exported(image, *names_traced)]
        except (ElfError, NotFoundError, PrivilegeError):
            continue
        if names := tuple(dict.fromkeys(function.name for function in exported)):
            short = libraries.library_name(target.name)
            after = f" ({short}:{names[0]} names the first)" if short != target.path else ""
            remarks.append(Remark(f"not traced: functions of the same name in {target.name}: ", names, after))
    return remarks


def is_c(library: str) -> bool:
    """Return whether the C library is meant, or a library that has become a part of it."""
    return library == "c" or library in libraries.MERGED


class _Search:
    """One search for functions of a library, in the places that its methods name."""

    def __init__(self, library: str, patterns: Sequence[symbols.Pattern]) -> None:
        self._library, self._patterns = library, patterns
        self._names = tuple(name for pattern in patterns if (name := name_of(pattern)) is not None)
        # A name that is no library's may be a provider's of probes. Then no function of a program is meant.
        self._is_known = is_c(library) or knows_library(library)
        self._functions: list[Function] = []
        self._remarks: list[Remark] = []
        self._missing: NotFoundError | None = None
        self._mapped: list[Target] = []  # by the traced processes

    def found(self) -> Found:
        """The functions of all places, with a remark if the name means several files."""
        if not self._functions:
            return Found([], self._remarks, self._missing or NotFoundError(f"no such function in {self._library}"))
        keys = self._keys()
        named = [target for target in self._mapped if target.key in keys and self._is_called(target.name)]
        if len({os.path.basename(target.name) for target in named}) > 1:  # noqa: PTH119
            shown = [*(target.path for target in named[:_SHOWN]), *(["…"] if len(named) > _SHOWN else [])]
            self._remarks.append(
                Remark(f"{self._library!r} means several files here, all of which are traced: {', '.join(shown)}")
            )
        return Found(self._functions, self._remarks)

    def in_library(self, pids: Sequence[int] = ()) -> None:
        """Search the library itself, where the loader or the processes have it."""
        try:
            self._functions += targets.find_functions(self._library, self._patterns, pids=pids)
        except NotFoundError as error:
            self._missing = error

    def in_processes(self, pids: Sequence[int]) -> None:
        """Search the libraries of the processes, and their programs."""
        self.in_library(pids)
        mapped = self._mapped = targets.mapped_by(pids)
        with_library = {pid for target in mapped if self._is_called(target.name) for pid in target.pids}
        for program, program_pids in _programs(mapped, pids):
            if without := [pid for pid in program_pids if pid not in with_library]:
                who = f"process {without[0]}" if len(without) == 1 else f"processes {', '.join(map(str, without))}"
                self._in_program(program, who, len(without) > 1)
            if len(without) < len(program_pids):
                self._replacements(program)

    def in_command(self, path: str) -> None:
        """Search the program that will be started, and the library that it will load."""
        program, interpreter = Target(path, path), _interpreter(path)
        if interpreter is None:
            self._in_program(program, path)
            return
        self.in_library()
        if self._is_called(interpreter) and os.path.exists(interpreter):  # musl's, which is its C library
            self._in_file(Target(interpreter, interpreter))
        if not self._functions:
            self._in_program(program, path)
        else:
            self._replacements(program)

    def everywhere(self) -> None:
        """Search the library, all files of its name that are mapped, and the programs that are linked statically."""
        self.in_library()
        mapped, alone = _all_mapped()
        self._mapped = mapped
        for target in mapped:
            # A program of the library's name is left out: a command is the one that is in PATH.
            if self._is_called(target.name) and os.path.basename(target.name) != self._library:  # noqa: PTH119
                self._in_file(target, in_source=True)
        if self._is_known and len(self._names) == len(self._patterns):
            for target in alone:
                self._in_file(target, go=False)

    def _is_called(self, name: str) -> bool:
        name = name.removesuffix(" (deleted)")
        if libraries.is_called(name, self._library):
            return True
        return self._library in libraries.MERGED and libraries.is_called(name, "c")

    def _keys(self) -> set[FileKey | None]:
        """The files of the functions that were found."""
        return {function.file.key if function.file else file_key(function.path) for function in self._functions}

    def _in_file(self, target: Target, *, go: bool = True, in_source: bool = False) -> None:
        """Add the functions of a file that was not searched yet; `go` says whether a Go program counts, `in_source`
        whether names are those in the source."""
        key = target.key or file_key(target.path)
        if key is None or key in self._keys():
            return
        try:
            for image in targets.images(target):
                if go or not is_go(image):
                    self._functions += symbols.functions(image, *self._patterns, in_source=in_source)
        except (ElfError, NotFoundError, PrivilegeError):  # it is damaged or gone, and one of many
            return

    def _in_program(self, program: Target, who: str, several: bool = False) -> None:
        """Add the functions of a program that does not load the library; `who` runs it, `several` processes or one."""
        if not self._is_known and not libraries.installed(self._library):
            return
        functions_here: list[Function] = []
        is_static = is_stripped = True
        for image in targets.images(program):
            functions = symbols.functions(image, *self._patterns)
            is_static = is_static and not any(segment.type == PT_INTERP for segment in image.segments)
            is_stripped = is_stripped and not functions and not symbols.function_names(image)
            functions_here += functions
        be, its = ("are", "their") if several else ("is", "its")
        how = f"{who} {be} {'statically linked' if is_static else f'without lib{self._library}'}"
        self._functions += functions_here
        names_found = {function.name for function in functions_here}
        names_asked = self._names or tuple(
            pattern if isinstance(pattern, str) else pattern.pattern for pattern in self._patterns
        )
        if functions_here:
            names = tuple(name for name in names_asked if name in names_found or not self._names)
            self._remarks.append(Remark(f"{how}: traced in {program.path}: ", names))
        lacking = tuple(name for name in names_asked if name not in names_found and (self._names or not functions_here))
        if lacking and is_stripped:
            self._remarks.append(Remark(f"{how}, and stripped, so these functions cannot be found: ", lacking))
        elif lacking:
            self._remarks.append(Remark(f"{how}; {its} own symbols do not include ", lacking))
        if not functions_here:
            hint = None if is_stripped else f"usdtkit list --functions 'GLOB' {program.path} shows what it has"
            self._missing = NotFoundError(
                self._remarks[-1].text, hint=hint or "install its debug file, if there is one"
            )

    def _replacements(self, program: Target) -> None:
        """Add what a program exports that loads the library: it calls these functions instead of the library's."""
        if not self._names or any(function.path == program.path for function in self._functions):
            return
        replacing = [
            function_exported
            for image in targets.images(program)
            for function_exported in symbols.exported(image, *self._names)
        ]
        if replacing:
            names = tuple(dict.fromkeys(function.name for function in replacing))
            self._functions += replacing
            self._remarks.append(Remark(f"{program.path} calls its own functions instead: ", names))


def _all_mapped() -> tuple[list[Target], list[Target]]:
    """What runs, as of a moment ago, because a tool asks for one group of functions after the other.

    The second list has those files which some process maps alone: these are programs that are linked statically.
    """
    global _latest
    if time.monotonic() - _latest[0] > _FRESH_S:
        mapped = targets.all_mapped(quiet=True)
        files = Counter(pid for target in mapped for pid in target.pids)
        alone = [target for target in mapped if any(files[pid] == 1 for pid in target.pids)]
        _latest = time.monotonic(), mapped, alone  # from its end: with thousands of processes a scan takes long itself
    return _latest[1:]


def _is_elf(path: str) -> bool:
    try:
        with Image.open(path):
            return True
    except (ElfError, NotFoundError, PrivilegeError):
        return False


def _interpreter(path: str) -> str | None:
    """The dynamic loader that a program asks for, None if it is linked statically. ElfError."""
    with Image.open(path) as image:
        for segment in image.segments:
            if segment.type == PT_INTERP:
                return os.fsdecode(image.read(segment.offset, min(segment.file_size, 4096)).rstrip(b"\0"))
    return None


def _programs(mapped: Iterable[Target], pids: Sequence[int]) -> list[tuple[Target, list[int]]]:
    """The programs that processes run, each with those of them that run it."""
    by_key = {target.key: target for target in mapped}
    programs: dict[str, tuple[Target, list[int]]] = {}
    for pid in dict.fromkeys(pids):
        target = by_key.get(file_key(f"/proc/{pid}/exe"))
        if target is not None:
            programs.setdefault(target.path, (target, []))[1].append(pid)
    return list(programs.values())
