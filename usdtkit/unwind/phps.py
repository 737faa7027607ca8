"""A process → the PHP that it runs, and PHP's frames, read from outside through /proc/PID/mem.

Input: the number of a process. Output: `Php`, and the frames of its thread: builds without thread safety, as those of
distributions are, run PHP in one. A function's line is that of the instruction which the engine has noted last: it does
so before each call. Functions in C are left out, as native stacks have these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from usdtkit.elf.image import Image, Segment
from usdtkit.elf.symbols import variables
from usdtkit.errors import UnsupportedError
from usdtkit.records import dataclass
from usdtkit.signatures import zend
from usdtkit.unwind.memory import Memory, Unreadable
from usdtkit.unwind.runtimes import RuntimeFrame, Runtimes, RuntimeThread, code_of

GLOBALS = "executor_globals"
_WITH_THREADS = "executor_globals_offset"
_VERSION = re.compile(rb"\0X-Powered-By: PHP/([0-9]{1,2})\.([0-9]{1,2})\.")
_MOST_FRAMES = 1024
_LONGEST = 511  # bytes that are read of a name
_MOST_LENGTH = 1 << 30
MAIN = "{main}"
"""How the code of a file is called that is in no function, as in PHP's own stack traces."""


@dataclass(frozen=True, slots=True)
class Build:
    """The PHP of one file: `version` as (8, 2), `globals` the virtual address of executor_globals, and `file` where a
    function has its file's name."""

    path: str
    version: tuple[int, int]
    globals: int
    file: int
    code: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Php:
    """The PHP of a process: `globals` is the address of executor_globals in it."""

    pid: int
    build: Build
    globals: int


class Phps:
    """Which PHP processes run."""

    def __init__(self) -> None:
        self._runtimes = Runtimes(build_of, _has_frames, "php")

    def of(self, pid: int) -> Php | None:
        """The PHP that a process runs; None if it runs none.

        UnsupportedError, which says why, of one whose frames cannot be found. NotFoundError, PrivilegeError.
        """
        found = self._runtimes.of(pid)
        return None if found is None else Php(pid, found[0], found[0].globals + found[1])


def build_of(image: Image) -> Build | None:
    """Return the PHP that is in a file; None if there is none. UnsupportedError, with the reason, if there is one whose
    frames cannot be found. ElfError."""
    if image.machine not in ("x86_64", "aarch64"):
        return None
    found = variables(image, GLOBALS, _WITH_THREADS)
    if not found:
        return None
    section = image.section(".rodata")
    texts = set() if section is None else set(_VERSION.findall(image.data(section)))
    if len(texts) != 1:
        raise UnsupportedError(f"{image.path}: PHP of an unknown version")
    major, minor = map(int, texts.pop())
    if GLOBALS not in found:
        raise UnsupportedError(f"{image.path}: PHP {major}.{minor} was built for threads, which is not supported")
    file = zend.FILES.get((major, minor))
    if file is None:
        problem = "older than 7.3" if (major, minor) < min(zend.FILES) else "newer than 8.4"
        raise UnsupportedError(f"{image.path}: PHP {major}.{minor} is {problem}")
    return Build(image.path, (major, minor), found[GLOBALS], file, code_of(image))


def thread_of(php: Php) -> RuntimeThread:
    """Return the thread of a process that runs PHP, with the frames that it has now.

    The process may run meanwhile: the frames end where they change. NotFoundError if the process has ended,
    PrivilegeError.
    """
    frames: list[RuntimeFrame] = []
    problem = ""
    with Memory(php.pid) as memory:
        try:
            frames.extend(_frames(php, memory))
        except Unreadable as error:
            problem = str(error)
    return RuntimeThread(0, tuple(frames), problem)


def _has_frames(pid: int, build: Build, bias: int) -> bool:
    thread = thread_of(Php(pid, build, build.globals + bias))
    if thread.problem:
        version = ".".join(map(str, build.version))
        raise UnsupportedError(
            f"process {pid}: {build.path} is not laid out as PHP {version}, or damaged: {thread.problem}"
        )
    return bool(thread.frames)


def _frames(php: Php, memory: Memory) -> Iterator[RuntimeFrame]:
    frame = memory.pointer(php.globals + zend.CURRENT)
    for _ in range(_MOST_FRAMES):
        if not frame:
            return
        data = memory.read(frame, zend.FRAME_SIZE)
        function = _pointer(data, zend.FUNCTION)
        kind = memory.read(function + zend.TYPE, 1)[0] if function else zend.INTERNAL
        if kind in (zend.USER, zend.EVALUATED):
            name, owner = memory.pointer(function + zend.NAME), memory.pointer(function + zend.CLASS)
            text = _text(memory, name) if name else MAIN
            if owner and name:
                text = f"{_text(memory, memory.pointer(owner + zend.CLASS_NAME))}::{text}"
            file = _text(memory, memory.pointer(function + php.build.file))
            instruction = _pointer(data, zend.INSTRUCTION)
            line = memory.number(instruction + zend.LINE) if instruction else 0
            call = int.from_bytes(data[zend.CALL : zend.CALL + 4], "little")
            yield RuntimeFrame(text, file, line or None, bool(call & zend.IS_TOP))
        elif kind != zend.INTERNAL:
            raise Unreadable(f"there is no function at {function:#x}")
        frame = _pointer(data, zend.PREVIOUS)
    raise Unreadable(f"there are more than {_MOST_FRAMES} frames")


def _text(memory: Memory, address: int) -> str:
    length = memory.pointer(address + zend.LENGTH)
    if not 0 < length < _MOST_LENGTH:
        raise Unreadable(f"there is no string at {address:#x}")
    return memory.read(address + zend.CHARACTERS, min(length, _LONGEST)).decode("utf-8", "replace")


def _pointer(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
