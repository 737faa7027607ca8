"""A process → the runtime of a language that it runs, and the file which has that runtime's code.

Input: the number of a process, a function that says which runtime an open file has, and one that looks at the process
whether its memory is as that runtime lays it out. Output: what the first function has said, and where the file is in
the process. `usdtkit.unwind.rubies` and `phps` give both functions, and read frames, which are of the records here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from usdtkit.elf.constants import PF_X, PT_LOAD
from usdtkit.elf.image import Image, Segment
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UnsupportedError
from usdtkit.mappedfiles import inspecting, open_mapping
from usdtkit.maps import Mapping, executable_mappings, maps_of
from usdtkit.records import NamedTuple

Ranges = tuple[tuple[int, int], ...]
"""(start, end) of each, in the order of the addresses."""
_LOOKS = 8
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


class Runtimes(Generic[B]):
    """Which processes run a runtime. What is known of a file is kept, by its inode and the time of its last change."""

    def __init__(
        self,
        build_of: Callable[[Image], B | None],
        has_frames: Callable[[int, B, int], bool],
        part: str,
        *,
        anywhere: bool = False,
    ):
        """`build_of` raises UnsupportedError for a build whose frames cannot be found. `has_frames` is asked with the
        number of a process, the build and its bias: True if there are frames as they should be, False if there are
        none, UnsupportedError if they cannot be. Files with `part` in their name are looked at, or `anywhere`, and then
        those come first."""
        self._build_of, self._has_frames, self._part, self._anywhere = build_of, has_frames, part, anywhere
        self._builds: dict[tuple[int, int, int], B | str | None] = {}
        self._seen: set[B] = set()  # in a process whose memory looked as it should

    def of(self, pid: int) -> tuple[B, int] | None:
        """The build that a process runs, and how far addresses in the process are from those in the file; None if it
        runs none.

        UnsupportedError, which says why, of one whose frames cannot be found. NotFoundError, PrivilegeError.
        """
        with inspecting(pid):
            mappings = {each.identity: each for each in executable_mappings(maps_of(pid)) if each.identity.inode}
        called = {each: self._part in each.name.rpartition("/")[2] for each in mappings.values()}
        files = [each for each in mappings.values() if called[each] or self._anywhere]
        for mapping in sorted(files, key=lambda each: not called[each]):
            build = self._build(pid, mapping)
            if build is not None and (bias := bias_of(build.code, mapping)) is not None:
                if build not in self._seen:
                    self._try(pid, build, bias)
                return build, bias
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
            if isinstance(build, str):
                raise UnsupportedError(build)
            return build
        return None

    def _try(self, pid: int, build: B, bias: int) -> None:
        """UnsupportedError if the memory of the process does not look as it should. It changes while it is looked at,
        so that one good look in a few is enough. A process that runs no code of the language yet says nothing."""
        for attempt in range(_LOOKS):
            try:
                if self._has_frames(pid, build, bias):
                    self._seen.add(build)
                return
            except UnsupportedError:
                if attempt == _LOOKS - 1:
                    raise


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
