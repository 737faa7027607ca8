"""Stacks that a program in the kernel has seen → frames with names.

Input: the definitions in the ring buffer of bpf/stacks.c, one for each distinct stack, and the ids by which events and
keys refer to them. Output: `Stack`s. The mappings of a process are read (`trace.memory`) as soon as a definition of one
of its stacks arrives, so that its stacks keep their names after it has ended.

These frames have names for certain:
- for a process that still runs when its first stack arrives, every frame in a file with symbols. A session that is
  iterated reads stacks at once, and a session of a `pid` reads the mappings of its processes before it attaches;
- for a process that has ended by then, every frame in a file with a build-id that is traced, or that some process maps
  when the names are asked for;
- for code that was compiled at run time, every frame that is listed in a perf map that can still be opened.
"""

from __future__ import annotations

import os
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from usdtkit.bpf.layout import Kind
from usdtkit.files import OpenFile
from usdtkit.kernel.ring import RingBuffer
from usdtkit.model import PythonCaller, UserPlace
from usdtkit.signatures.python import distance_of_code
from usdtkit.trace.memory import NATIVE, PYTHON, AddressSpace, Frame, Remains, aligned
from usdtkit.trace.merging import PythonFrame, is_evaluation, is_trampoline, merge
from usdtkit.trace.symbols import Files
from usdtkit.trace.unseen import CutStacks
from usdtkit.trace.unwinder import Unwinder

if TYPE_CHECKING:
    from usdtkit.trace.command import Command

# struct stack_record of bpf/stacks.c.
_HEAD = struct.Struct("<QIIIiIIII")
_ADDRESSES = struct.Struct("<128Q")
_BUILT = struct.Struct("<i20sQ")
_EXACT, _UNPLACED = 1 << 63, 1 << 62
_ADDRESS = _UNPLACED - 1  # an address without its marks
_AT_ENTRY, _AT_EXIT = 1, 3
_UNKNOWN = 3
_PYTHON_AT = _HEAD.size + _ADDRESSES.size + 64 * _BUILT.size
_BUILD_ID_VALID = 1
_MOST_PROCESSES = 1 << 13  # whose mappings are remembered; those of stacks that have come stay with these
ENDS = (
    "",  # the outermost call
    "the limit of 127 frames",
    "unreadable memory",
    "memory that is not known to have code",
    "a rule that no table can hold",
    "a caller that is not further up",
    "code without tables",
)
"""Where a walk along native frames ended, by the numbers of walk.h, as nouns."""


class _Python(TypedDict, total=False):
    python: Sequence[PythonFrame]
    python_end: str | None
    is_evaluation: Callable[[Frame], bool]


class Stack:
    """The calls that led to a hit, innermost first, as `frames`. Equal stacks of a process are one object.

    `addresses` are the addresses of the native frames in the process. Names are looked up when frames are read for the
    first time, which also works after the session has been closed.

    `native_end` and `python_end` say why the walks along native and along Python's frames ended before the outermost
    call, as a noun; "" where they did not, and None where that is not known.
    """

    __slots__ = (
        "_exact", "_frames", "_is_evaluation", "_memory", "_native", "_python",
        "addresses", "native_end", "pid", "python_end",
    )  # fmt: skip

    def __init__(
        self,
        pid: int,
        addresses: tuple[int, ...],
        exact: Collection[int],
        memory: AddressSpace | Remains,
        *,
        native_end: str | None = None,
        python: Sequence[PythonFrame] = (),
        python_end: str | None = None,
        is_evaluation: Callable[[Frame], bool] = is_evaluation,
    ) -> None:
        """`exact`: the numbers of those `addresses` at which an instruction was interrupted. Calls return to the
        others."""
        self.pid = pid
        self.addresses = addresses
        self.native_end = native_end
        self.python_end = python_end
        self._exact = exact
        self._memory = memory
        self._python = python
        self._is_evaluation = is_evaluation
        self._native: tuple[Frame, ...] | None = None
        self._frames: tuple[Frame, ...] | None = None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames with names, innermost first. Functions of languages stand in place of their interpreters'."""
        if self._frames is None:
            self._frames = merge(self.native, self._python, self._is_evaluation) if self._python else self.native
        return self._frames

    @property
    def native(self) -> tuple[Frame, ...]:
        """The frames of machine code alone, and so those of the interpreter too."""
        if self._native is None:
            # A return address is the address of the next instruction, which may belong to another function.
            self._native = tuple(
                self._memory.frame(address, address if n in self._exact else address - 1)
                for n, address in enumerate(self.addresses)
            )
        return self._native

    @property
    def python(self) -> tuple[Frame, ...]:
        """The functions of Python, PHP or Ruby alone."""
        return tuple(function.frame for function in self._python)

    @property
    def end(self) -> str | None:
        """Why the stack does not reach the outermost call: the first of `native_end` and `python_end` that says so."""
        return self.native_end or self.python_end or self.native_end

    @property
    def is_named(self) -> bool:
        """Whether somebody has read its frames."""
        return self._native is not None

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"<Stack of process {self.pid}: {' < '.join(frame.label for frame in self.frames)}>"


def cut_among(stacks: Iterable[Stack]) -> tuple[CutStacks, ...]:
    """How many of these lack their outer calls, by reason, the most frequent first."""
    cut = Counter(stack.end for stack in stacks if stack.end)
    return tuple(CutStacks(why, count) for why, count in cut.most_common())


class Stacks:
    """All stacks of a session, by their ids."""

    def __init__(self, pids: Iterable[int], traced: Iterable[OpenFile]) -> None:
        """`pids`: the processes that are traced from the start. `traced`: the files that are traced."""
        self.unwinder: Unwinder | None = None
        """What tells the kernel how to walk, if it can walk by tables."""
        self._ring: RingBuffer | None = None
        self._files = Files(traced)
        self._stacks: dict[int, Stack] = {}
        self._memories: OrderedDict[int, AddressSpace] = OrderedDict()
        # Processes since the last `collect` began: those whose mappings were read, and those the walker was told of.
        self._looked_at: set[int] = set()
        self._learned: set[int] = set()
        for pid in pids:
            self._read(pid)

    def learn(self, pid: int) -> None:
        """Look at what a process has mapped now: how to walk its stacks, and what their functions are called."""
        if self.unwinder is not None:
            self.unwinder.learn(pid)
        self._read(pid)

    def open(self, ring: RingBuffer) -> None:
        """Take over the ring buffer that has the definitions; `close` frees it."""
        self._ring = ring

    def prepare(self, command: Command | None) -> None:
        """Look at what needs privileges, before these are dropped. A command has most libraries in common with us, and
        so with the child that will become it."""
        self._files.vdso()
        if self.unwinder is not None and command is not None:
            self.unwinder.prepare(os.path.realpath(command.program))
            self.unwinder.learn(command.pid)

    @property
    def fd(self) -> int:
        """The descriptor that is readable when new stacks wait."""
        assert self._ring is not None
        return self._ring.fd

    def collect(self) -> None:
        """Read new stacks from the ring buffer, and the mappings of their processes."""
        if self._ring is None:
            return
        self._looked_at.clear()
        self._learned.clear()
        for payload in self._ring.payloads():
            id, stack = self._stack(payload)
            self._stacks[id] = stack

    def knows(self, pids: Iterable[int]) -> bool:
        """Whether the mappings of all these processes have been read."""
        return all(pid in self._memories for pid in pids)

    def get(self, id: int) -> Stack | None:
        """The stack with this id. None for 0, which is the id of stacks that could not be taken."""
        if id and id not in self._stacks:
            self.collect()
        return self._stacks.get(id)

    def frame(self, pid: int, address: int) -> Frame:
        """The function that a process has at an address of code."""
        self._looked_at.clear()
        memory = self._memory(pid, (address,))
        return Frame(NATIVE, offset=address, address=address) if memory is None else memory.frame(address, address)

    def advice(self) -> list[str]:
        """What to do where frames that were read lack names that they could have, one line for each reason."""
        from usdtkit.trace.pythons import advice  # lazy: only asked at the end of a session with stacks

        named: dict[int, bool] = {}
        for stack in self._stacks.values():
            if stack.is_named:
                has_names = bool(stack.python) or any(map(is_trampoline, stack.native))
                named[stack.pid] = has_names or named.get(stack.pid, False)
        others = {pid: memory for pid, memory in [*self._memories.items()] if pid != os.getpid()}
        problems = None if self.unwinder is None else self.unwinder.pythons.problems
        return advice((memory for pid, memory in others.items() if named.get(pid) is False), problems)

    def account(self) -> tuple[int, tuple[CutStacks, ...]]:
        """How many stacks there are, and how many of them lack their outer calls."""
        self.collect()
        return len(self._stacks), cut_among(self._stacks.values())

    def begins_function(self, place: UserPlace) -> bool:
        """Whether a site is a function's first instruction, where the return address lies where the call put it."""
        table = self._files.traced(place.opened).table()
        address = None if table is None else table.address(place.file_offset)
        return table is not None and address is not None and table.begins_function(address)

    @property
    def known(self) -> Mapping[Kind, Callable[[int], Any]]:
        """What makes values of the ids that the program in the kernel sends, by the kind of the field."""
        return {"stack": self.get, "pyframe": self._python_caller}

    def close(self) -> None:
        """Read what is still in the ring buffer, and free that. The stacks remain."""
        self.collect()
        if self._ring is not None:
            self._ring.close()
        if self.unwinder is not None:
            self.unwinder.close()

    def _python_caller(self, id: int) -> PythonCaller | None:
        """The innermost Python function of a stack that is of the program itself, else of a package that it uses."""
        stack = self.get(id)
        functions = () if stack is None else [frame for frame in stack.python if frame.kind == PYTHON]
        if not functions:
            return None
        function = min(functions, key=lambda frame: distance_of_code(frame.file))
        return PythonCaller(function.name, function.file, function.line)

    def _stack(self, payload: bytes) -> tuple[int, Stack]:
        id, pid, depth, place, built_size, learned, end, python_depth, python_end = _HEAD.unpack_from(payload)
        marked = _ADDRESSES.unpack_from(payload, _HEAD.size)[:depth]
        addresses = tuple(address & _ADDRESS for address in marked)
        exact = [n for n, address in enumerate(marked) if address & _EXACT]
        memory = self._memory(pid, addresses)
        unplaced = [address & _ADDRESS for address in marked if address & _UNPLACED]
        native_end = self._end(pid, learned, end, unplaced)
        python = self._python(learned, payload, python_depth, python_end)
        if memory is None and learned:  # it has ended, but it had what its parent has
            memory = self._memories.get(learned)
        if memory is not None:
            real = tuple(memory.real(addresses))
            return id, Stack(pid, real, exact, memory, native_end=native_end, **python)
        notes = payload[_HEAD.size + _ADDRESSES.size :][: max(0, built_size)]
        noted: list[tuple[str, int] | None] = [
            (build_id.hex(), offset) if status == _BUILD_ID_VALID else None
            for status, build_id, offset in _BUILT.iter_unpack(notes)
        ]
        if place == _AT_EXIT:
            noted[:1] = [None]  # the kernel's walk begins with the function that returns, ours begins with its caller
        remains = Remains(addresses, aligned(addresses, noted, place == _AT_ENTRY), self._files)
        return id, Stack(pid, addresses, exact, remains, native_end=native_end, **python)

    def _python(self, process: int, payload: bytes, depth: int, end: int) -> _Python:
        """What a stack is told of its Python functions; `process` is that which has the same mappings."""
        if self.unwinder is None or (not depth and not end):
            return {}
        pythons = self.unwinder.pythons
        return {
            "python": self.unwinder.python_frames.frames(payload[_PYTHON_AT : _PYTHON_AT + 16 * depth]),
            "python_end": ENDS[end],
            "is_evaluation": lambda frame: pythons.is_evaluation(process, frame),
        }

    def _end(self, pid: int, learned: int, end: int, unplaced: Sequence[int]) -> str | None:
        """Why a walk has ended; None if there are no tables. What was not known of its process is learned for the next
        one, also where it has passed addresses of which the kernel did not know the place."""
        if self.unwinder is None:
            return None
        if not learned or (unplaced and not self.unwinder.are_compiled(pid, unplaced)):
            if pid not in self._learned:
                self._learned.add(pid)
                self.unwinder.learn_again(pid)
            if not learned or not self.unwinder.are_compiled(pid, unplaced):
                return ENDS[_UNKNOWN]
        if not end:
            self.unwinder.was_right(pid)
        return ENDS[end]

    def _memory(self, pid: int, addresses: tuple[int, ...]) -> AddressSpace | None:
        """The mappings of a process, read at most once for each `collect`; the last known ones where it has ended."""
        memory = self._memories.get(pid)
        if pid in self._looked_at or (memory is not None and memory.still_holds(addresses)):
            return memory
        self._looked_at.add(pid)
        return self._read(pid)

    def _read(self, pid: int) -> AddressSpace | None:
        """Read the mappings of a process now; the last known ones where it has ended."""
        memory = AddressSpace.of(pid, self._files)
        if memory is not None:
            self._memories.pop(pid, None)  # the latest come last
            self._memories[pid] = memory
            if len(self._memories) > _MOST_PROCESSES:
                self._memories.popitem(last=False)
        return memory or self._memories.get(pid)
