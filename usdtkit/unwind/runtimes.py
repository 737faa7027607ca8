"""A process → the runtime of a language that it runs, and the file which has that runtime's code.

Input: the number of a process, a function that says which runtime an open file has, one that says what that means for
a process, and one that looks whether the memory of the process is as that runtime lays it out. Output: what the second
function has said. `usdtkit.unwind.pythons`, `rubies` and `phps` give these functions, and read frames; those of the
last two are of the records here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from usdtkit.elf.constants import PF_X, PT_LOAD
from usdtkit.elf.image import Image, Segment
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UnsupportedError
from usdtkit.mappedfiles import inspecting, open_mapping
from usdtkit.maps import Mapping, executable_mappings, maps_of
from usdtkit.records import NamedTuple
from usdtkit.unwind.mapped import LONGEST_LOOK_S

Ranges = tuple[tuple[int, int], ...]
"""(start, end) of each, in the order of the addresses."""
_LOOKS = 8
_MOST_FILES = 1 << 12  # that are remembered
_PAGE = 4096


class RuntimeFrame(NamedTuple):
    """One call of a function of the language. With `is_entry` it is the outermost one that a call of the interpreter's
    function runs, as native stacks have it."""

    name: str
    file: str
    line: int | None
    is_entry: bool


class RuntimeThread(NamedTuple):
    """A thread's frames, innermost first. `id` is what pthread_self() returns in it, or 0 where the runtime does not
    know. `problem` says why the frames end before the outermost one, and is "" if they do not."""

    id: int
    frames: tuple[RuntimeFrame, ...]
    problem: str


class Evaluation:
    """Where the function of a file is that runs functions of the language: (start, end) of each part, as virtual
    addresses. Decoding it takes longer than all else that is read of the file, so that is left until a stack is shown.
    Two are equal if they are of the same function and file."""

    __slots__ = ("_name", "_path", "_ranges", "file")

    def __init__(self, image: Image, name: str) -> None:
        self.file = image.file
        self._path, self._name = image.path, name
        self._ranges: Ranges | None = None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self._ranges is None:
            from usdtkit.unwind.evaluation import evaluation_ranges  # lazy: as above

            self._ranges = ()
            with suppress(ElfError), Image(self._path, self.file) as image:
                self._ranges = evaluation_ranges(image, self._name)
        return iter(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluation) and (self.file, self._name) == (other.file, other._name)

    def __hash__(self) -> int:
        return hash((self.file, self._name))


class Build(Protocol):
    """A runtime as one file has it."""

    @property
    def code(self) -> tuple[Segment, ...]:
        """What `code_of` returns for the file."""


B = TypeVar("B", bound=Build)
R = TypeVar("R")


class Runtimes(Generic[B, R]):
    """Which processes run a runtime. What is known of a file is kept, by its inode and the time of its last change."""

    def __init__(
        self,
        build_of: Callable[[Image], B | None],
        runtime_of: Callable[[int, B, int], R],
        has_frames: Callable[[R], bool],
        part: str,
        *,
        anywhere: bool = False,
    ):
        """`build_of` raises UnsupportedError for a build whose frames cannot be found. `runtime_of` makes what is known
        of a process, of its number, the build and how far addresses in the process are from those in the file.
        `has_frames` is asked about that: True if there are frames as they should be, False if there are none,
        UnsupportedError if they cannot be. Files with `part` in their name are looked at, or `anywhere`, and then those
        come first."""
        self._build_of, self._runtime_of, self._has_frames = build_of, runtime_of, has_frames
        self._part, self._anywhere = part, anywhere
        self._builds: OrderedDict[tuple[int, int, int], B | str | None] = OrderedDict()
        self._seen: set[B] = set()  # in a process whose memory looked as it should

    def of(self, pid: int) -> R | None:
        """The runtime that a process has; None if it has none, or so many files that there is no time to find it.

        UnsupportedError, which says why, of one whose frames cannot be found. NotFoundError, PrivilegeError.
        """
        with inspecting(pid):
            mappings = {each.identity: each for each in executable_mappings(maps_of(pid)) if each.identity.inode}
        called = {each: self._part in each.name.rpartition("/")[2] for each in mappings.values()}
        files = [each for each in mappings.values() if called[each] or self._anywhere]
        until = time.monotonic() + LONGEST_LOOK_S
        for mapping in sorted(files, key=lambda each: not called[each]):
            build = self._build(pid, mapping)
            if build is not None and (bias := bias_of(build.code, mapping)) is not None:
                runtime = self._runtime_of(pid, build, bias)
                if build not in self._seen and self._is_right(runtime):
                    self._seen.add(build)
                return runtime
            if time.monotonic() > until:
                break
        return None

    def _build(self, pid: int, mapping: Mapping) -> B | None:
        with suppress(ElfError, NotFoundError, PrivilegeError):
            file = open_mapping(pid, mapping)
            if file.version not in self._builds:
                self._builds[file.version] = None  # unless it turns out to be one
                with Image(mapping.name.removesuffix(" (deleted)"), file) as image:
                    try:
                        self._builds[file.version] = self._build_of(image)
                    except UnsupportedError as error:
                        self._builds[file.version] = error.message
            build = self._builds[file.version]
            if len(self._builds) > _MOST_FILES:
                self._builds.popitem(last=False)
            if isinstance(build, str):
                raise UnsupportedError(build)
            return build
        return None

    def _is_right(self, runtime: R) -> bool:
        """Whether there are frames. UnsupportedError if the memory of the process does not look as it should. It
        changes while it is looked at, so that one good look in a few is enough. A process that runs no code of the
        language yet says nothing."""
        for _ in range(_LOOKS - 1):
            with suppress(UnsupportedError):
                return self._has_frames(runtime)
        return self._has_frames(runtime)


def code_of(image: Image) -> tuple[Segment, ...]:
    """The segments of a file that are loaded to be executed."""
    return tuple(segment for segment in image.segments if segment.type == PT_LOAD and segment.flags & PF_X)


def bias_of(code: tuple[Segment, ...], mapping: Mapping) -> int | None:
    """How far addresses in a process are from those in the file; None if it is not code that is mapped there."""
    for segment in code:
        inside = mapping.offset - segment.offset // _PAGE * _PAGE
        if 0 <= inside < segment.file_size + _PAGE:
            return mapping.start - inside - segment.address // _PAGE * _PAGE
    return None
