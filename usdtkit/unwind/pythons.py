"""A process → the CPython that it runs, and its threads' Python frames, read from outside through /proc/PID/mem.

Input: the number of a process. Output: `Python`, by which the kernel's walk (bpf/pythonframes.c) finds frames in the
process, and the frames themselves. These are read to try a layout on the first process of each build: what is there
must look like interpreters, threads and functions with names, or no walk is made. The memory belongs to a program that
runs meanwhile and may hold anything, so all that is read is bounded and checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from usdtkit.errors import UnsupportedError
from usdtkit.records import NamedTuple, dataclass
from usdtkit.signatures.cpython import BEFORE_SHIM, EVERY, FIRST_SHIM, MARKED, Layout
from usdtkit.unwind.codeobjects import LONGEST_FILE, LONGEST_LINES, LONGEST_NAME, WIDTHS, CodeObject, text_of
from usdtkit.unwind.cpython import Build, build_of
from usdtkit.unwind.memory import Memory, Unreadable
from usdtkit.unwind.runtimes import Runtimes

MOST_INTERPRETERS, MOST_THREADS, MOST_FRAMES = 64, 4096, 1024
_POINTER = struct.Struct("<Q")
_TEXT_HEAD = struct.Struct("<16xq8xI")  # of a str: its length, and its state
_BYTES_SIZE, _BYTES_DATA = 16, 32  # in a bytes object
_COMPACT, _ASCII = 32, 64  # bits of a str's state; the kind is in those below
_LARGEST_BYTES = 1 << 30


class PythonFrame(NamedTuple):
    """One call of a Python function. With `is_entry` it is the outermost one that its call of the evaluation function
    runs, as native stacks have it."""

    name: str
    file: str
    line: int | None
    is_entry: bool


class PythonThread(NamedTuple):
    """A thread's frames in one interpreter, innermost first. `id` is what pthread_self() returns in it. `problem` says
    why the frames end before the outermost one, and is "" if they do not."""

    id: int
    interpreter: int
    frames: tuple[PythonFrame, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Python:
    """The CPython of a process: `runtime` is the address of _PyRuntime in it."""

    pid: int
    build: Build
    runtime: int

    @property
    def evaluation(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of the code of the evaluation function in the process."""
        bias = self.runtime - self.build.runtime
        return tuple((start + bias, end + bias) for start, end in self.build.evaluation)


class Pythons(Runtimes[Build, Python]):
    """Which CPython processes run."""

    def __init__(self) -> None:
        def in_process(pid: int, build: Build, bias: int) -> Python:
            return Python(pid, build, build.runtime + bias)

        super().__init__(build_of, in_process, _has_frames, "python", anywhere=True)


def threads_of(python: Python) -> list[PythonThread]:
    """Return the threads of all interpreters of a process with the frames that they have now, newest first.

    The process may run meanwhile: the frames of a thread that changes while it is read end there. UnsupportedError if
    the memory is not as the layout has it, NotFoundError if the process has ended, PrivilegeError.
    """
    with Memory(python.pid) as memory:
        return _Walk(python, memory).threads()


def _has_frames(python: Python) -> bool:
    threads = threads_of(python)
    return any(thread.frames and not thread.problem for thread in threads)


class _Walk:
    """One look at a process."""

    def __init__(self, python: Python, memory: Memory) -> None:
        self._python, self._memory = python, memory
        self._layout: Layout = python.build.layout
        self._codes: dict[int, CodeObject] = {}

    def threads(self) -> list[PythonThread]:
        layout, found = self._layout, []
        try:
            for interpreter in self._list(
                self._python.runtime + layout.interpreters, layout.interpreter_next, MOST_INTERPRETERS
            ):
                for state in self._list(interpreter + layout.threads, layout.thread_next, MOST_THREADS):
                    if self._memory.pointer(state + layout.thread_interpreter) != interpreter:
                        raise Unreadable(f"the thread state at {state:#x} is of another interpreter")
                    found.append(self._thread(interpreter, state))
        except Unreadable as problem:
            raise self._unlike(str(problem)) from None
        problems = [thread.problem for thread in found]
        if problems and all(problems):
            raise self._unlike(problems[0])
        return found

    def _unlike(self, problem: str) -> UnsupportedError:
        build = self._python.build
        version = ".".join(map(str, build.version))
        return UnsupportedError(f"{build.path}: it is not laid out as CPython {version}, or damaged: {problem}")

    def _thread(self, interpreter: int, state: int) -> PythonThread:
        frames: list[PythonFrame] = []
        problem = ""
        try:
            frames.extend(self._frames(state))
        except Unreadable as error:
            problem = str(error)
        return PythonThread(self._memory.pointer(state + self._layout.thread_id), interpreter, tuple(frames), problem)

    def _list(self, head: int, next: int, most: int) -> Iterator[int]:
        seen: set[int] = set()
        at = self._memory.pointer(head)
        while at and len(seen) < most:
            if at in seen:
                raise Unreadable(f"the list at {head:#x} leads back to {at:#x}")
            seen.add(at)
            yield at
            at = self._memory.pointer(at + next)

    def _frames(self, state: int) -> Iterator[PythonFrame]:
        layout, memory = self._layout, self._memory
        frame = memory.pointer(state + layout.thread_frame)
        if layout.indirect and frame:
            frame = memory.pointer(frame + layout.indirect - 1)
        waiting: PythonFrame | None = None  # until it is known whether its caller is a shim
        for _ in range(MOST_FRAMES):
            if not frame:
                break
            data = memory.read(frame, layout.frame_size)
            mark = data[layout.entry]
            if layout.entries == BEFORE_SHIM and mark >= FIRST_SHIM:
                if waiting is not None:
                    yield waiting._replace(is_entry=True)
                waiting = None
            else:
                address = _POINTER.unpack_from(data, layout.code)[0] & ~layout.tag
                code = self._code(address)
                width = 4 if layout.at_is_number else 8
                at = int.from_bytes(data[layout.at : layout.at + width], "little", signed=True)
                if not layout.at_is_number:
                    at -= address + layout.instructions
                is_entry = layout.entries == EVERY or (layout.entries == MARKED and mark != 0)
                if not code.is_internal:
                    if waiting is not None:
                        yield waiting
                    waiting = PythonFrame(code.name, code.file, code.line(at), is_entry)
            frame = _POINTER.unpack_from(data, layout.previous)[0]
        else:
            raise Unreadable(f"there are more than {MOST_FRAMES} frames")
        if waiting is not None:
            yield waiting

    def _code(self, address: int) -> CodeObject:
        if address not in self._codes:
            layout, memory = self._layout, self._memory
            first_line = int.from_bytes(memory.read(address + layout.first_line, 4), "little", signed=True)
            lines = memory.pointer(address + layout.lines)
            size = memory.pointer(lines + _BYTES_SIZE)
            if size > _LARGEST_BYTES:
                raise Unreadable(f"the table of lines at {lines:#x} has {size} bytes")
            self._codes[address] = CodeObject(
                self._python.build.version,
                self._text(memory.pointer(address + layout.name), LONGEST_NAME),
                self._text(memory.pointer(address + layout.file), LONGEST_FILE),
                first_line,
                memory.read(lines + _BYTES_DATA, min(size, LONGEST_LINES)),
            )
        return self._codes[address]

    def _text(self, address: int, longest: int) -> str:
        length, state = _TEXT_HEAD.unpack(self._memory.read(address, _TEXT_HEAD.size))
        width = state >> 2 & 7
        if not state & _COMPACT or width not in WIDTHS or not 0 < length < _LARGEST_BYTES:
            raise Unreadable(f"there is no str at {address:#x}")
        start = self._layout.ascii if state & _ASCII else self._layout.text
        data = self._memory.read(address + start, min(length * width, longest // width * width))
        return text_of(data, width, longest)
