"""A process → the Ruby that it runs, and its threads' Ruby frames, read from outside through /proc/PID/mem.

Input: the number of a process. Output: `Ruby`, and the threads of all ractors with the frames of the fibers that they
run. A thread is known by what pthread_self() returns in it. Functions in C are left out, as native stacks have these.
`usdtkit.unwind.iseqs` finds the lines of instructions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress

from usdtkit.elf.image import Image, Segment
from usdtkit.elf.symbols import variables
from usdtkit.errors import ElfError, UnsupportedError
from usdtkit.records import dataclass
from usdtkit.signatures import cruby
from usdtkit.signatures.cruby import LAYOUTS, Layout
from usdtkit.unwind.codeobjects import LONGEST_FILE, LONGEST_NAME, utf8_of
from usdtkit.unwind.iseqs import MOST_INSTRUCTIONS, Iseq, size_of_positions
from usdtkit.unwind.memory import Memory, Unreadable
from usdtkit.unwind.runtimes import Evaluation, Ranges, RuntimeFrame, Runtimes, RuntimeThread, code_of

LAYOUT = struct.Struct(f"<{len(Layout._fields)}i")
"""struct ruby_layout of bpf/rubyframes.c."""
MACHINE = "ruby_current_vm_ptr"
_INTERPRETER = "rb_vm_exec"
_VERSION = "ruby_version"
_USER = "rb_during_gc"
# endbr64, and then lea or mov to rax, relative to the next instruction.
_TAKES = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x48[\x8b\x8d]\x05(.{4})", re.DOTALL)
_NUMBERS = re.compile(rb"([0-9])\.([0-9])\.[0-9]{1,2}\0")
_MOST_RACTORS, _MOST_THREADS, _MOST_FRAMES = 256, 4096, 1024
_MOST_LENGTH = 1 << 30


@dataclass(frozen=True, slots=True)
class Build:
    """The Ruby of one file: `version` as (3, 1), and the virtual addresses of the pointer to its virtual machine and of
    the interpreter's function."""

    path: str
    version: tuple[int, int]
    machine: int
    layout: Layout
    evaluation: Evaluation
    code: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Ruby:
    """The Ruby of a process: `machine` is the address in it of the pointer to the virtual machine."""

    pid: int
    build: Build
    machine: int

    @property
    def evaluation(self) -> Ranges:
        """Where the code of the interpreter's function is in the process."""
        bias = self.machine - self.build.machine
        return tuple((start + bias, end + bias) for start, end in self.build.evaluation)


class Rubies(Runtimes[Build, Ruby]):
    """Which Ruby processes run."""

    def __init__(self) -> None:
        def in_process(pid: int, build: Build, bias: int) -> Ruby:
            return Ruby(pid, build, build.machine + bias)

        super().__init__(build_of, in_process, _has_frames, "ruby")


def build_of(image: Image) -> Build | None:
    """Return the Ruby that is in a file; None if there is none. UnsupportedError, with the reason, if there is one
    whose frames cannot be found. ElfError."""
    found = variables(image, MACHINE, _VERSION, _USER)
    if _VERSION not in found:
        return None
    text = b""
    with suppress(ElfError):
        text = image.loaded(found[_VERSION], 8)
    numbers = _NUMBERS.match(text)
    if numbers is None:
        return None
    version = int(numbers[1]), int(numbers[2])
    layout, name = LAYOUTS.get(version), f"Ruby {version[0]}.{version[1]}"
    if layout is None:
        raise UnsupportedError(f"{image.path}: it is not known how {name} lays out its frames")
    if image.machine != "x86_64":
        raise UnsupportedError(f"{image.path}: it is not known how {name} lays out its frames on {image.machine}")
    machine = found.get(MACHINE) or _machine_by_code(image, found.get(_USER, 0))
    if not machine:
        raise UnsupportedError(f"{image.path}: {name} was stripped of the symbol {MACHINE}")
    return Build(image.path, version, machine, layout, Evaluation(image, _INTERPRETER), code_of(image))


def threads_of(ruby: Ruby) -> list[RuntimeThread]:
    """Return the threads of all ractors of a process with the frames that they have now.

    The process may run meanwhile: the frames of a thread that changes while it is read end there. UnsupportedError if
    the memory is not as the layout has it, NotFoundError if the process has ended, PrivilegeError.
    """
    with Memory(ruby.pid) as memory:
        return _Walk(ruby, memory).threads()


def _machine_by_code(image: Image, start: int) -> int:
    """The pointer to the virtual machine, by the function `_USER`, which first takes its address or value; 0 if it does
    something else. Since 3.3 Ruby does not export the pointer."""
    code = b""
    with suppress(ElfError):
        code = image.loaded(start, 11)
    first = _TAKES.match(code)
    return start + first.end() + int.from_bytes(first[1], "little", signed=True) if first else 0


def _has_frames(ruby: Ruby) -> bool:
    threads = threads_of(ruby)
    return any(thread.frames and not thread.problem for thread in threads)


class _Walk:
    """One look at a process."""

    def __init__(self, ruby: Ruby, memory: Memory) -> None:
        self._ruby, self._memory, self._layout = ruby, memory, ruby.build.layout
        self._codes: dict[int, tuple[int, Iseq]] = {}

    def threads(self) -> list[RuntimeThread]:
        layout, found = self._layout, []
        try:
            machine = self._memory.pointer(self._ruby.machine)
            owners = [machine] if machine else []
            if machine and layout.ractors >= 0:
                owners = list(self._list(machine + layout.ractors, layout.ractor_next, _MOST_RACTORS))
            for owner in owners:
                for thread in self._list(owner + layout.threads, cruby.THREAD_NODE, _MOST_THREADS):
                    found.append(self._thread(thread))
        except Unreadable as problem:
            raise self._unlike(str(problem)) from None
        problems = [thread.problem for thread in found]
        if problems and all(problems):
            raise self._unlike(problems[0])
        return found

    def _unlike(self, problem: str) -> UnsupportedError:
        build = self._ruby.build
        version = ".".join(map(str, build.version))
        return UnsupportedError(
            f"process {self._ruby.pid}: {build.path} is not laid out as Ruby {version}, or damaged: {problem}"
        )

    def _list(self, head: int, node: int, most: int) -> Iterator[int]:
        """The members of a list, which is a ring: each has a node that points to the next one's, the last to `head`."""
        seen: set[int] = set()
        at = self._memory.pointer(head)
        while at != head and len(seen) < most:
            if at in seen or not at:
                raise Unreadable(f"the list at {head:#x} is no ring")
            seen.add(at)
            yield at - node
            at = self._memory.pointer(at)

    def _thread(self, thread: int) -> RuntimeThread:
        layout, memory = self._layout, self._memory
        native = thread if layout.native < 0 else memory.pointer(thread + layout.native)
        id = memory.pointer(native + layout.thread_id) if native else 0
        frames: list[RuntimeFrame] = []
        problem = ""
        try:
            frames.extend(self._frames(memory.pointer(thread + layout.context)))
        except Unreadable as error:
            problem = str(error)
        return RuntimeThread(id, tuple(frames), problem)

    def _frames(self, context: int) -> Iterator[RuntimeFrame]:
        memory, size = self._memory, self._layout.frame_size
        stack, words, frame = (memory.pointer(context + at) for at in (cruby.STACK, cruby.STACK_SIZE, cruby.FRAME))
        end = stack + 8 * words
        if not stack:
            return
        if not stack <= frame <= end or (end - frame) % size:
            raise Unreadable(f"there is no frame at {frame:#x}")
        if (end - frame) // size > _MOST_FRAMES:
            raise Unreadable(f"there are more than {_MOST_FRAMES} frames")
        for at in range(frame, end, size):
            data = memory.read(at, size)
            pc, iseq, environment = (_pointer(data, each) for each in (cruby.PC, cruby.ISEQ, cruby.ENVIRONMENT))
            flags = memory.pointer(environment)
            if iseq and not flags & cruby.IS_C and flags & cruby.KIND != cruby.BELOW_ALL:
                start, code = self._code(memory.pointer(iseq + cruby.BODY))
                line = code.line(max((pc - start) // 8 - 1, 0)) if pc else None
                yield RuntimeFrame(code.name, code.file, line, bool(flags & cruby.FINISHES))

    def _code(self, body: int) -> tuple[int, Iseq]:
        """Where the instructions of a piece of code are, and what is known of it."""
        if body not in self._codes:
            layout, memory = self._layout, self._memory
            data = memory.read(body, cruby.BODY_SIZE)
            size = int.from_bytes(data[cruby.CODE_SIZE : cruby.CODE_SIZE + 4], "little")
            count = int.from_bytes(data[layout.line_count : layout.line_count + 4], "little")
            if not count <= size <= MOST_INSTRUCTIONS:
                raise Unreadable(f"there is no code at {body:#x}")
            positions, lines = b"", data[layout.lines : layout.lines + 4]
            if count != 1:
                at, place = _pointer(data, layout.positions), _pointer(data, layout.lines)
                positions = memory.read(at, size_of_positions(size)) if at else b""
                lines = memory.read(place, count * layout.line_size) if count else b""
            name, file = self._text(_pointer(data, cruby.NAME), LONGEST_NAME), self._path(_pointer(data, cruby.PATH))
            self._codes[body] = _pointer(data, cruby.CODE), Iseq(name, file, positions, lines, layout.line_size)
        return self._codes[body]

    def _path(self, address: int) -> str:
        """Of a String, or of the first element of an Array."""
        flags = self._memory.pointer(address)
        if flags & cruby.TYPE == cruby.ARRAY:
            elements = address + cruby.ELEMENTS
            if not flags & cruby.OUTSIDE:
                elements = self._memory.pointer(address + cruby.OUTER_ELEMENTS)
            address = self._memory.pointer(elements)
        return self._text(address, LONGEST_FILE)

    def _text(self, address: int, longest: int) -> str:
        layout, memory = self._layout, self._memory
        flags = memory.pointer(address)
        is_outside = bool(flags & cruby.OUTSIDE)
        length = flags >> 14 & 31
        if is_outside or layout.has_length:
            length = memory.pointer(address + cruby.LENGTH)
        if flags & cruby.TYPE != cruby.STRING or not length < _MOST_LENGTH:
            raise Unreadable(f"there is no String at {address:#x}")
        start = memory.pointer(address + cruby.OUTER) if is_outside else address + layout.embedded
        return utf8_of(memory.read(start, min(length, longest)), longest) if length else ""


def _pointer(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
