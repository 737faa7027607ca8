"""Functions by the name of their library, wherever they were linked to: names in, functions and remarks out.

Stands on `usdtkit.targets`, which finds the library itself; used by `usdtkit.trace`. A program that is linked
statically has no libc, Node has OpenSSL in itself, a program with an allocator of its own never calls libc's, and two
containers have a libc each. Whoever asks for the functions of a library means all of these. What was taken from
elsewhere, and what could not be found, is said in remarks, because the name does not say it.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH110

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from usdtkit import libraries, targets
from usdtkit.elf import symbols
from usdtkit.elf.constants import PT_INTERP
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError
from usdtkit.model import Function, Target
from usdtkit.records import NamedTuple
from usdtkit.scan import file_key
from usdtkit.signatures import knows_library

_IS_GLOB = re.compile(r"[*?\[]")
_SHOWN = 5  # files of a name, in a remark
_FRESH_S = 0.5
_latest: tuple[float, list[Target]] = (-_FRESH_S, [])


class Remark(NamedTuple):
    """A sentence about some functions: `before`, their names, `after`. Those that differ in the names are one."""

    before: str
    names: tuple[str, ...] = ()
    after: str = ""

    @property
    def text(self) -> str:
        return f"{self.before}{', '.join(self.names)}{self.after}"


class Found(NamedTuple):
    """The functions, and what their user should know of where they are. Where there is none, `missing` is the error."""

    functions: list[Function]
    remarks: list[Remark]
    missing: NotFoundError | None = None


def find(
    library: str, patterns: Sequence[symbols.Pattern], *, pids: Sequence[int] = (), program: str | None = None
) -> Found:
    """The functions of `library` that match, as `targets.find_functions` has them, and those of the same library that
    lie elsewhere: in the program that each of the processes `pids` runs, or the one that will be started as `program`;
    without both, in whatever runs.
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
    """What else the processes map that exports functions of the C library (path of the file that is traced, name): they
    call that instead where it was loaded first, such as a preloaded allocator's malloc."""
    wanted = dict.fromkeys(name for _, name in traced)
    files = {file_key(path) for path, _ in traced}
    remarks = []
    for target in targets.mapped_by(pids):
        if file_key(target.path) in files:
            continue
        try:
            with Image.open(target.path) as image:
                names = tuple(dict.fromkeys(function.name for function in symbols.exported(image, *wanted)))
        except (ElfError, NotFoundError, PrivilegeError):
            continue
        if names:
            short = libraries.library_name(target.name)
            after = f" ({short}:{names[0]} names the first)" if short != target.path else ""
            remarks.append(Remark(f"not traced: functions of the same name in {target.name}: ", names, after))
    return remarks


def is_c(library: str) -> bool:
    """Whether the C library is meant, or what is a part of it by now."""
    return library == "c" or library in libraries.MERGED


class _Search:
    def __init__(self, library: str, patterns: Sequence[symbols.Pattern]) -> None:
        self._library, self._patterns = library, patterns
        self._names = tuple(one for one in patterns if isinstance(one, str) and not _IS_GLOB.search(one))
        # A name that is no library's may be a provider's of probes: then no program's function is meant.
        self._is_known = is_c(library) or knows_library(library)
        self._functions: list[Function] = []
        self._remarks: list[Remark] = []
        self._missing: NotFoundError | None = None
        self._mapped: list[Target] = []  # what the processes map that are traced

    def found(self) -> Found:
        if not self._functions:
            return Found([], self._remarks, self._missing or NotFoundError(f"no such function in {self._library}"))
        traced = {file_key(path) for path in {function.path for function in self._functions}}
        called = [target for target in self._mapped if self._is_called(target.name) and file_key(target.path) in traced]
        if len({os.path.basename(target.name) for target in called}) > 1:  # noqa: PTH119
            shown = [*(target.path for target in called[:_SHOWN]), *(["…"] if len(called) > _SHOWN else [])]
            self._remarks.append(
                Remark(f"{self._library!r} means several files here, all of which are traced: {', '.join(shown)}")
            )
        return Found(self._functions, self._remarks)

    def in_library(self, pids: Sequence[int] = ()) -> None:
        try:
            self._functions += targets.find_functions(self._library, self._patterns, pids=pids)
        except NotFoundError as error:
            self._missing = error

    def in_processes(self, pids: Sequence[int]) -> None:
        self.in_library(pids)
        mapped = self._mapped = targets.mapped_by(pids)
        covered = {pid for target in mapped if self._is_called(target.name) for pid in target.pids}
        for program, own in _programs(mapped, pids):
            if outside := [pid for pid in own if pid not in covered]:
                number = f"process {outside[0]}" if len(outside) == 1 else f"processes {', '.join(map(str, outside))}"
                self._in_program(program.path, number, len(outside) > 1)
            if len(outside) < len(own):
                self._of_its_own(program.path)

    def in_command(self, program: str) -> None:
        interpreter = _interpreter(program)
        if interpreter is None:
            self._in_program(program, program)
            return
        self.in_library()
        if self._is_called(interpreter) and os.path.exists(interpreter):  # musl's, which is its C library
            self._in_file(interpreter)
        if not self._functions:
            self._in_program(program, program)
        else:
            self._of_its_own(program)

    def everywhere(self) -> None:
        self.in_library()
        mapped = self._mapped = _all_mapped()
        for target in mapped:
            # Not programs of that name: a command is the one that is in PATH.
            if self._is_called(target.name) and os.path.basename(target.name) != self._library:  # noqa: PTH119
                self._in_file(target.path)
        if self._is_known and len(self._names) == len(self._patterns):
            files = Counter(pid for target in mapped for pid in target.pids)
            for target in mapped:
                if any(files[pid] == 1 for pid in target.pids):  # it maps nothing else, so it is linked statically
                    self._in_file(target.path, go=False)

    def _is_called(self, name: str) -> bool:
        name = name.removesuffix(" (deleted)")
        wanted = [self._library, *(["c"] if self._library in libraries.MERGED else [])]
        return any(libraries.is_called(name, each) for each in wanted)

    def _in_file(self, path: str, *, go: bool = True) -> None:
        """Add what a file has, if it is none that was looked at: `go` says whether a Go program counts."""
        key = file_key(path)
        if key is None or any(file_key(other) == key for other in {function.path for function in self._functions}):
            return
        try:
            with Image.open(path) as image:
                if go or not is_go(image):
                    self._functions += symbols.functions(image, *self._patterns)
        except (ElfError, NotFoundError, PrivilegeError):  # damaged, or gone: it is one of many
            return

    def _in_program(self, path: str, who: str, several: bool = False) -> None:
        """What a program has that does not have the library."""
        if not self._is_known and not libraries.installed(self._library):
            return
        with Image.open(path) as image:
            own = symbols.functions(image, *self._patterns)
            is_static = not any(segment.type == PT_INTERP for segment in image.segments)
            is_stripped = not own and not symbols.function_names(image)
        be, its = ("are", "their") if several else ("is", "its")
        how = f"{who} {be} {'statically linked' if is_static else f'without lib{self._library}'}"
        self._functions += own
        has = {function.name for function in own}
        wanted = self._names or tuple(one if isinstance(one, str) else one.pattern for one in self._patterns)
        if own:
            names = tuple(name for name in wanted if name in has or not self._names)
            self._remarks.append(Remark(f"{how}: traced in {path}: ", names))
        lacking = tuple(name for name in wanted if name not in has and (self._names or not own))
        if lacking and is_stripped:
            self._remarks.append(Remark(f"{how}, and stripped: no symbol says where to find ", lacking))
        elif lacking:
            self._remarks.append(Remark(f"{how}; {its} own symbols have no ", lacking))
        if not own:
            hint = None if is_stripped else f"usdtkit list --functions 'GLOB' {path} shows what it has"
            self._missing = NotFoundError(
                self._remarks[-1].text, hint=hint or "its debug file, if there is one, says it"
            )

    def _of_its_own(self, path: str) -> None:
        """What a program has besides the library: what it exports is called instead of the library's."""
        if not self._names or any(function.path == path for function in self._functions):
            return
        with Image.open(path) as image:
            own = symbols.exported(image, *self._names)
        if own:
            names = tuple(dict.fromkeys(function.name for function in own))
            self._functions += own
            self._remarks.append(Remark(f"{path} has functions of its own, which it calls instead: ", names))


def _all_mapped() -> list[Target]:
    """What runs, as it was a moment ago: a tool asks for one group of functions after the other."""
    global _latest
    now = time.monotonic()
    if now - _latest[0] > _FRESH_S:
        _latest = now, targets.all_mapped(quiet=True)
    return _latest[1]


def _is_elf(path: str) -> bool:
    try:
        with Image.open(path):
            return True
    except (ElfError, NotFoundError, PrivilegeError):
        return False


def _interpreter(path: str) -> str | None:
    """The dynamic loader that a program asks for; None of one that is linked statically. ElfError."""
    with Image.open(path) as image:
        for segment in image.segments:
            if segment.type == PT_INTERP:
                return os.fsdecode(image.read(segment.offset, min(segment.file_size, 4096)).rstrip(b"\0"))
    return None


def _programs(mapped: Iterable[Target], pids: Sequence[int]) -> list[tuple[Target, list[int]]]:
    """The programs that processes run, each with those that run it."""
    by_key = {file_key(target.path): target for target in mapped}
    found: dict[str, tuple[Target, list[int]]] = {}
    for pid in dict.fromkeys(pids):
        target = by_key.get(file_key(f"/proc/{pid}/exe"))
        if target is not None:
            found.setdefault(target.path, (target, []))[1].append(pid)
    return list(found.values())
