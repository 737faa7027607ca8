"""A function of an ELF file → the instructions by which it leaves, so that its returns are seen without return probes.

Input `usdtkit.elf.image.Image` and a `Function` of it, output `Exits`; used by `usdtkit.trace`. Stands on the decoder
of the shim (native/decode.h), on `usdtkit.elf.callframes`, which each exit is checked against, and on
`usdtkit.elf.callees`, which says what a jump out of a function leads to.

A return probe of the kernel puts an address of its own on the stack in place of the return address. Whatever walks or
switches stacks (exceptions, coroutines, Go) then meets that address, and the program dies. A probe on each instruction
by which a function leaves changes nothing on the stack. Where not all of them are certain, the function is refused.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from usdtkit._ffi import ffi, lib
from usdtkit.elf import golang
from usdtkit.elf.callees import Callees, Destination
from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, UnsupportedError
from usdtkit.model import Function
from usdtkit.records import NamedTuple

MOST_SITES = 256
"""Exit sites of one function, those of the functions that it ends in included."""

_MOST_FOLLOWED = 64
_LARGEST_FUNCTION = 4 << 20
_FLOW = struct.Struct("<IBBBBq")
_RETURN, _JUMP, _BRANCH, _INDIRECT, _CALL, _STOP = 1, 2, 3, 4, 5, 6  # as native/decode.h has them
_REFUSED, _NOTRACK, _TABLE, _ARRAY, _MEMORY, _SLOT, _CONDITION = 1, 2, 4, 8, 16, 32, 64
_FULL = 3
_PROBLEMS = {
    1: "its code cannot be decoded: it holds data, or is not compiled code",
    2: "it has a branch (prefix 66) that differs between processors",
}
_RUNS_ON = "it runs on into what comes after it"
_MISFIT = "its call frame information does not fit its code"
_THUNKS = ("__x86_indirect_thunk", "__x86_return_thunk", "__llvm_retpoline")
_REGISTER, _POINTER = _COMPUTED = "an address in a register", "an address in memory"

Kind = Literal["return", "jump", "branch"]


class Exit(NamedTuple):
    """One instruction by which a function leaves.

    `kind` is "return", "jump" (a tail call) or "branch" (a conditional one, taken by the x86 `condition` code, the low
    four bits of its opcode; else 0). A `shared` one also runs in calls of other functions. The return value is in its
    register where it is `final`; at a jump to what could not be followed, whose name is `to`, it is still to come.
    """

    file_offset: int
    kind: Kind
    condition: int
    shared: bool
    final: bool
    to: str = ""


class Exits(NamedTuple):
    """How a function is left.

    `sites` has each file offset once, in ascending order. A leaf (`is_leaf`) calls nothing and jumps nowhere, so that
    no exception, cancellation or switch of stacks can leave it. `ends_in` names what it jumps to and was not followed.
    `entry` is the file offset where a call of it is to be counted: its first instruction, or in Go the one behind the
    check of the stack, which is run again when the stack has grown.
    """

    sites: tuple[Exit, ...]
    is_leaf: bool
    ends_in: tuple[str, ...]
    entry: int


class _Flow(NamedTuple):
    """One instruction that changes the flow of control; `at` and `target` are virtual addresses."""

    at: int
    length: int
    kind: int
    condition: int
    flags: int
    target: int


class _Code(NamedTuple):
    """A decoded range; `problem` is why it could not be decoded, or "".

    `begins` has 1 where an instruction begins, and 2 behind its LOCK prefix, over which jumps may lead.
    """

    start: int
    begins: bytes
    flows: list[_Flow]
    problem: str


class _Leave(NamedTuple):
    """A return or an outward jump of a body; a jump leads to `to`."""

    at: int
    kind: Kind
    condition: int
    in_fragment: bool
    to: Destination | None


class _Body(NamedTuple):
    """One function and its fragments: how they leave, or the problem for which that is not known."""

    problem: str
    calls: bool = False
    leaves: tuple[_Leave, ...] = ()


class ExitFinder:
    """Finds the exits of functions of one open file; keeps what it has found of each."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._frames = CallFrames(image)
        self._callees = Callees(image, self._frames)
        self._sweep = {"x86_64": lib.usdtkit_sweep_x86_64, "aarch64": lib.usdtkit_sweep_aarch64}.get(image.machine)
        self._is_supported = self._sweep is not None and image.bits == 64
        self._bodies: dict[int, _Body] = {}
        self._flows = ffi.new("usdtkit_flow[]", 1024)

    def find(self, function: Function, into: Sequence[int] = ()) -> Exits:
        """The exits of a function of this file. UnsupportedError where not all of them are known, says why.

        `into`: addresses of all functions that it calls last through a pointer, for who knows them.
        """
        if not self._is_supported:
            raise UnsupportedError(
                f"where {function.name} in {function.path} returns cannot be told: its {self._image.machine} code "
                "cannot be decoded",
                hint="trace its entry",
            )
        is_go = function.convention == "go"
        problem = golang.refusal(self._image, function.name) if is_go else ""
        if function.indirect:
            problem = "it is an indirect function, which is only called at start"
        elif function.name.startswith("Builtins_"):
            problem = "it is a builtin of V8, which has a calling convention of its own"
        body = _Body(problem) if problem else self._body(function.address, function.size)
        if body.problem:
            raise _refusal(function, body.problem)
        sites, ends = self._sites(body, function.address, into)
        if not sites:
            raise _refusal(function, "it does not return")
        if len(sites) > MOST_SITES:
            raise _refusal(function, f"it leaves by {len(sites)} instructions, and {MOST_SITES} are the most")
        is_leaf = not is_go and not body.calls and all(leave.kind == "return" for leave in body.leaves)
        entry = self._image.file_offset(function.address)
        if is_go:
            code = self._decode(function.address, function.size)
            entry += golang.stack_check(code.start, [(f.at, f.length, f.kind, f.target) for f in code.flows])
        return Exits(tuple(sites[offset] for offset in sorted(sites)), is_leaf, tuple(ends), entry)

    def pointer(self, address: int) -> int:
        """The address of the function that the file, or the loader, puts at this address of data; 0 where none is."""
        return self._callees.pointer(address)

    def starts(self, function: Function) -> list[int] | None:
        """Where the instructions of a function begin, in bytes from its start; None where it cannot be decoded."""
        return self.starts_of(function.address, function.size)

    def starts_of(self, start: int, size: int) -> list[int] | None:
        """As `starts`, of code of `size` bytes at the virtual address `start`."""
        if not self._is_supported:
            return None
        code = self._decode(start, self._size(start, size))
        inside = range(code.start, code.start + len(code.begins))
        if code.problem not in ("", _RUNS_ON) or any(
            flow.target in inside and not code.begins[flow.target - code.start]
            for flow in code.flows
            if flow.kind in (_JUMP, _BRANCH)
        ):
            return None
        return [at for at, begins in enumerate(code.begins) if begins == 1]

    def around(self, address: int) -> Destination | None:
        """The function of this file that a virtual address lies in, by its symbols and call frame information."""
        return self._callees.around(address)

    def _sites(self, body: _Body, start: int, into: Sequence[int]) -> tuple[dict[int, Exit], list[str]]:
        """The exit sites of a body and of the functions that it ends in; and what else it ends in, each name once."""
        sites: dict[int, Exit] = {}
        ends: dict[str, None] = {}
        followed = {start}
        queue = [body]
        for each in queue:  # which grows meanwhile
            for leave in each.leaves:
                to = leave.to
                if to is not None and self._follow(to, into, followed, queue, MOST_SITES - len(sites)):
                    continue
                if to is not None:
                    ends[to.name] = None
                offset = self._image.file_offset(leave.at)
                shared = each is not body or leave.in_fragment
                name = "" if to is None else to.name
                sites[offset] = Exit(offset, leave.kind, leave.condition, shared, to is None, name)
        return sites, list(ends)

    def _follow(self, to: Destination, into: Sequence[int], followed: set[int], queue: list[_Body], room: int) -> bool:
        """Whether the exits of what is jumped to, which go to the queue, are exits of the function that jumps."""
        wanted = [to] if to.start else [Destination(to.name, start) for start in into if to.name in _COMPUTED]
        wanted = [one for one in wanted if one.start not in followed]
        callees = [self._callee(one) for one in wanted]
        if not wanted:
            return to.start in followed or (bool(into) and to.name in _COMPUTED)
        if (
            any(callee.problem for callee in callees)
            or len(followed) >= _MOST_FOLLOWED
            or sum(len(callee.leaves) for callee in callees) > room
        ):
            return False
        followed.update(one.start for one in wanted)
        queue += callees
        return True

    def _callee(self, to: Destination) -> _Body:
        """The body of what is jumped to, or one with a problem where it must not be followed."""
        if to.name.startswith(_THUNKS) or to.name.endswith(".abi0"):
            return _Body("its exits lead elsewhere")
        return self._body(to.start, to.size)

    def _size(self, start: int, size: int) -> int:
        """The size of a function, from its call frame information where its symbol has none."""
        if size == 0 and (described := self._frames.covering(start)) is not None and described.start == start:
            return described.end - start
        return size

    def _body(self, start: int, size: int) -> _Body:
        body = self._bodies.get(start)
        if body is None:
            self._bodies[start] = body = self._analysed(start, self._size(start, size))
        return body

    def _analysed(self, start: int, size: int) -> _Body:
        ranges = [self._decode(start, size)]
        calls = False
        outward: list[_Flow] = []
        leaving: list[_Flow] = []  # returns, and jumps whose destination is computed
        for code in ranges:  # which grows by the fragments
            if code.problem:
                return _Body(code.problem)
            low, high = code.start, code.start + len(code.begins)
            for flow in code.flows:
                kind = flow.kind
                if kind == _CALL:
                    calls = True
                elif kind in (_JUMP, _BRANCH):
                    target = flow.target
                    if low <= target < high:
                        if not code.begins[target - low]:
                            return _Body(_PROBLEMS[1])
                    elif not any(one.start <= target < one.start + len(one.begins) for one in ranges):
                        fragment = self._callees.fragment(target, kind == _BRANCH)
                        if fragment is not None:
                            ranges.append(self._decode(*fragment))
                        else:
                            outward.append(flow)
                elif kind != _STOP:
                    leaving.append(flow)
        if len(ranges) > 1 and not _is_in_step(ranges):
            return _Body(_PROBLEMS[1])
        return self._leaves(ranges, calls, outward, leaving)

    def _leaves(self, ranges: list[_Code], calls: bool, outward: list[_Flow], leaving: list[_Flow]) -> _Body:
        """The body of decoded ranges, whose jumps that leave them are `outward`."""
        own, frames = ranges[0], self._frames
        at_entry = frames.at_entry
        # Exceptions bring control to where no jump leads, so that what is not reached says nothing there.
        described = [frames.covering(code.start) for code in ranges]
        reached = None if any(one is not None and one.has_handlers for one in described) else _reached(ranges)
        found: list[tuple[_Flow, Kind, Destination | None]] = []
        indirect = [flow for flow in leaving if flow.kind == _INDIRECT]
        sure = indirect if reached is None else [flow for flow in indirect if flow.at in reached]
        jumps, has_table = self._indirect_jumps(sure, ranges, reached)
        if has_table and len(sure) < len(indirect):  # then there are more behind the table
            jumps, _ = self._indirect_jumps(indirect, ranges, reached)
        if jumps is None:
            return _Body("it jumps to an address in a register, to a part of it or elsewhere")
        if reached is not None and not has_table and not self._callees.is_go:
            # Not reached are data, what only a call within leads to, and another function that shares a fragment. Go
            # comes back from a panic to where no jump leads.
            outward = [flow for flow in outward if flow.at in reached]
            leaving = [flow for flow in leaving if flow.at in reached]
        found += [(flow, "jump", self._pointed_to(flow)) for flow in jumps]
        found += [(flow, "return", None) for flow in leaving if flow.kind == _RETURN]
        for flow in outward:
            to = self._callees.destination(flow.target)
            if to is None:
                return _Body("it jumps into the middle of another function, or into what is none")
            if flow.kind == _BRANCH and not flow.flags & _CONDITION:
                return _Body("it leaves by a branch that does not depend on the flags")
            found.append((flow, "jump" if flow.kind == _JUMP else "branch", to))
        leaves = []
        for flow, kind, to in found:
            rule = frames.rule(flow.at)
            if rule is not None and rule != at_entry:
                return _Body(_MISFIT)
            if flow.flags & _REFUSED:
                return _Body("the kernel puts no probe on an instruction by which it leaves")
            in_fragment = not own.start <= flow.at < own.start + len(own.begins)
            leaves.append(_Leave(flow.at, kind, flow.condition if kind == "branch" else 0, in_fragment, to))
        return _Body("", calls, tuple(leaves))

    def _indirect_jumps(
        self, jumps: list[_Flow], ranges: list[_Code], reached: set[int] | None
    ) -> tuple[list[_Flow] | None, bool]:
        """Those of the indirect jumps that leave the function (None: unclear), and whether others are a switch.

        A tail call needs the stack as it was at the entry. Where it is so at a jump through an array, that may be one
        of functions or the table of a switch; a table leads to code of the function that no other jump leads to.
        """
        unclear, has_table, at_entry = [], False, self._frames.at_entry
        for flow in jumps:
            rule = self._frames.rule(flow.at)
            if flow.flags & (_NOTRACK | _TABLE) or (rule is not None and rule != at_entry):
                has_table = True
            elif rule is None and not flow.flags & (_MEMORY | _ARRAY):
                return None, has_table
            else:
                unclear.append(flow)
        if has_table or not unclear:
            return unclear, has_table
        if reached is None:
            leaving = [flow for flow in unclear if not flow.flags & _ARRAY]
        elif all(flow.at in reached for code in ranges for flow in code.flows if flow.kind != _STOP):
            leaving = unclear
        else:
            leaving = [flow for flow in unclear if flow.flags & _SLOT]
        return leaving, len(leaving) < len(unclear)

    def _pointed_to(self, flow: _Flow) -> Destination:
        """Where a jump through a register or memory leads, as far as the file says."""
        if flow.flags & _SLOT:
            return self._callees.of_slot(flow.target) or Destination(_POINTER)
        return Destination(_POINTER if flow.flags & _MEMORY else _REGISTER)

    def _decode(self, start: int, size: int) -> _Code:
        if not 0 < size <= _LARGEST_FUNCTION:
            return _Code(start, b"", [], "its size is not known" if size <= 0 else "it is too large")
        try:
            code = self._image.read(self._image.file_offset(start), size)
        except ElfError:
            return _Code(start, b"", [], "its code lies beyond the end of the file")
        begins, sweep = ffi.new("uint8_t[]", size), ffi.new("usdtkit_sweep *")
        while True:
            assert self._sweep is not None
            self._sweep(code, size, begins, self._flows, len(self._flows), sweep)
            if sweep.end != _FULL:
                break
            self._flows = ffi.new("usdtkit_flow[]", 4 * len(self._flows))
        flows = [
            _Flow(start + at, length, kind, condition, flags, start + target)
            for at, length, kind, condition, flags, target in _FLOW.iter_unpack(
                ffi.buffer(self._flows, sweep.flows * _FLOW.size)
            )
        ]
        problem = _PROBLEMS[sweep.end] if sweep.end else ""
        if not problem and sweep.falls_through:
            problem = _RUNS_ON
        return _Code(start, bytes(ffi.buffer(begins, size)), flows, problem)


def _refusal(function: Function, problem: str) -> UnsupportedError:
    return UnsupportedError(
        f"where {function.name} in {function.path} returns cannot be told: {problem}",
        hint="trace its entry, or a function that calls it",
    )


def _is_in_step(ranges: list[_Code]) -> bool:
    """Whether every jump between the ranges leads to the start of an instruction."""
    return all(
        code.begins[flow.target - code.start]
        for one in ranges
        for flow in one.flows
        if flow.kind in (_JUMP, _BRANCH)
        for code in ranges
        if code.start <= flow.target < code.start + len(code.begins)
    )


def _reached(ranges: list[_Code]) -> set[int]:
    """The addresses of the flows that control comes to from the entry, as far as jumps tell."""
    flows = [flow for code in ranges for flow in code.flows]
    if len(ranges) > 1:
        flows.sort()
    addresses = [flow.at for flow in flows]
    reached: set[int] = set()
    low = ranges[0].start
    high = low + len(ranges[0].begins)
    queue = [low]
    while queue:
        at = bisect_left(addresses, queue.pop())
        while at < len(flows):
            flow = flows[at]
            if flow.at in reached:
                break
            reached.add(flow.at)
            kind = flow.kind
            if kind in (_JUMP, _BRANCH):
                target = flow.target
                if low <= target < high or any(c.start <= target < c.start + len(c.begins) for c in ranges[1:]):
                    queue.append(target)
            if kind not in (_BRANCH, _CALL):
                break
            at += 1
    return reached
