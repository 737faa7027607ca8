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
from usdtkit.records import NamedTuple, dataclass
from usdtkit.signatures import zend
from usdtkit.unwind.codeobjects import LONGEST_FILE, LONGEST_NAME, utf8_of
from usdtkit.unwind.memory import Memory, Unreadable
from usdtkit.unwind.runtimes import Evaluation, Ranges, RuntimeFrame, Runtimes, RuntimeThread, code_of

GLOBALS = "executor_globals"
_ENGINE = "execute_ex"
_WITH_THREADS = "executor_globals_offset"
_VERSION = re.compile(rb"\0X-Powered-By: PHP/([0-9]{1,2})\.([0-9]{1,2})\.")
_MOST_FRAMES = 1024
_MOST_LENGTH = 1 << 30
MAIN = "{main}"
"""How the code of a file is called that is in no function, as in PHP's own stack traces."""


@dataclass(frozen=True, slots=True)
class Build:
    """The PHP of one file: `version` as (8, 2), the virtual addresses of executor_globals and of the engine's function,
    and `file` where a function has its file's name."""

    path: str
    version: tuple[int, int]
    globals: int
    file: int
    evaluation: Evaluation
    code: tuple[Segment, ...]


class Function(NamedTuple):
    """A function of PHP, with its class in the name. A frame has the number of its line itself, 0 if it has none."""

    name: str
    file: str

    @classmethod
    def of(cls, name: bytes, owner: bytes, file: bytes) -> Function:
        """By its own name, that of its class and that of its file, which are empty where it has none."""
        called, of = utf8_of(name, LONGEST_NAME) or MAIN, utf8_of(owner, LONGEST_FILE)
        return cls(f"{of}::{called}" if of and name else called, utf8_of(file, LONGEST_FILE))

    def line(self, at: int) -> int | None:
        """The line of a frame; None if it has none."""
        return at or None


@dataclass(frozen=True, slots=True)
class Php:
    """The PHP of a process: `globals` is the address of executor_globals in it."""

    pid: int
    build: Build
    globals: int

    @property
    def evaluation(self) -> Ranges:
        """Where the code of the engine's function is in the process."""
        bias = self.globals - self.build.globals
        return tuple((start + bias, end + bias) for start, end in self.build.evaluation)


class Phps(Runtimes[Build, Php]):
    """Which PHP processes run."""

    def __init__(self) -> None:
        def in_process(pid: int, build: Build, bias: int) -> Php:
            return Php(pid, build, build.globals + bias)

        super().__init__(build_of, in_process, _has_frames, "php")


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
    return Build(image.path, (major, minor), found[GLOBALS], file, Evaluation(image, _ENGINE), code_of(image))


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


def _has_frames(php: Php) -> bool:
    thread = thread_of(php)
    if thread.problem:
        version = ".".join(map(str, php.build.version))
        raise UnsupportedError(
            f"process {php.pid}: {php.build.path} is not laid out as PHP {version}, or damaged: {thread.problem}"
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
            called = Function.of(
                _text(memory, name, LONGEST_NAME) if name else b"",
                _text(memory, memory.pointer(owner + zend.CLASS_NAME), LONGEST_FILE) if owner else b"",
                _text(memory, memory.pointer(function + php.build.file), LONGEST_FILE),
            )
            instruction = _pointer(data, zend.INSTRUCTION)
            line = memory.number(instruction + zend.LINE) if instruction else 0
            call = int.from_bytes(data[zend.CALL : zend.CALL + 4], "little")
            yield RuntimeFrame(called.name, called.file, called.line(line), bool(call & zend.IS_TOP))
        elif kind != zend.INTERNAL:
            raise Unreadable(f"there is no function at {function:#x}")
        frame = _pointer(data, zend.PREVIOUS)
    raise Unreadable(f"there are more than {_MOST_FRAMES} frames")


def _text(memory: Memory, address: int, longest: int) -> bytes:
    length = memory.pointer(address + zend.LENGTH)
    if not 0 < length < _MOST_LENGTH:
        raise Unreadable(f"there is no string at {address:#x}")
    return memory.read(address + zend.CHARACTERS, min(length, longest))


def _pointer(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
