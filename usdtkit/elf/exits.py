"""A function of an ELF file → the instructions by which it leaves, so that its returns are seen without return probes.

Input `usdtkit.elf.image.Image` and a `Function` of it, output `Exits`; used by `usdtkit.trace`. Uses
`usdtkit.elf.decoder` and `usdtkit.elf.flows` to read the code, `usdtkit.elf.callframes` to check each exit, and
`usdtkit.elf.callees` to find where a jump out of a function leads.

A return probe of the kernel replaces the return address on the stack. Code that walks or
switches stacks (exceptions, coroutines, Go) then meets that address, and the program dies. A probe on each instruction
by which a function leaves changes nothing on the stack. If one of these instructions is
uncertain, the function is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from usdtkit.elf import golang
from usdtkit.elf.callees import Callees, Destination
from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.decoder import Decoder
from usdtkit.elf.flows import (
    ARRAY,
    BRANCH,
    CALL,
    CONDITION,
    INDIRECT,
    JUMP,
    MEMORY,
    NOTRACK,
    REFUSED,
    RETURN,
    RUNS_ON,
    SLOT,
    STOP,
    TABLE,
    UNDECODABLE,
    Code,
    Flow,
    is_in_step,
    reached_from_entry,
)
from usdtkit.elf.image import Image
from usdtkit.errors import UnsupportedError
from usdtkit.model import Function
from usdtkit.records import NamedTuple

MOST_SITES = 256
"""The most exit sites of one function, including those of the functions that it ends in."""

_MOST_FOLLOWED = 64
_MISFIT = "its call frame information does not match its code"
_THUNKS = ("__x86_indirect_thunk", "__x86_return_thunk", "__llvm_retpoline")
_REGISTER, _POINTER = _COMPUTED = "an address in a register", "an address in memory"

Kind = Literal["return", "jump", "branch"]


class Exit(NamedTuple):
    """One instruction by which a function leaves.

    `kind` is "return", "jump" (a tail call) or "branch" (a conditional tail call; its `condition` is the x86 condition
    code, which is the low four bits of the opcode, else 0). A `shared` exit also runs in calls of other functions. At a
    `final` exit the return value is in its register. A jump that could not be followed is not final: the function `to`
    that it leads to will return the value.
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
    no exception, cancellation or switch of stacks can leave it. `ends_in` are the names of what it jumps to that was
    not followed. `entry` is the file offset where a call is to be counted: the first instruction, or in Go the one
    after the stack check, which runs again when the stack has grown.
    """

    sites: tuple[Exit, ...]
    is_leaf: bool
    ends_in: tuple[str, ...]
    entry: int


class _Leave(NamedTuple):
    """A return, or a jump out of a body to `to`."""

    at: int
    kind: Kind
    condition: int
    in_fragment: bool
    to: Destination | None


class _Body(NamedTuple):
    """One function and its fragments: how they leave, or the problem why that is not known."""

    problem: str
    calls: bool = False
    leaves: tuple[_Leave, ...] = ()


class ExitFinder:
    """Finds the exits of functions of one open file, and remembers them."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._frames = CallFrames(image)
        self._callees = Callees(image, self._frames)
        self._decoder = Decoder(image)
        self._bodies: dict[int, _Body] = {}

    def find(self, function: Function, into: Sequence[int] = ()) -> Exits:
        """Return the exits of a function of this file. UnsupportedError says why not all of them are known.

        `into` are the addresses of all functions that it may jump to through a pointer, if the caller knows them.
        """
        if not self._decoder.is_supported:
            raise UnsupportedError(
                f"the returns of {function.name} in {function.path} cannot be found: its {self._image.machine} code "
                "cannot be decoded",
                hint="trace its entry instead",
            )
        is_go = function.is_go
        problem = golang.refusal(function.convention, function.name) if is_go else ""
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
            raise _refusal(function, f"it leaves by {len(sites)} instructions, and at most {MOST_SITES} are supported")
        is_leaf = not is_go and not body.calls and all(leave.kind == "return" for leave in body.leaves)
        entry = self._image.file_offset(function.address)
        if is_go:
            code = self._decoder.decode(function.address, function.size)
            entry += golang.stack_check(code.start, [(f.at, f.length, f.kind, f.target) for f in code.flows])
        return Exits(tuple(sites[offset] for offset in sorted(sites)), is_leaf, tuple(ends), entry)

    def pointer(self, address: int) -> int:
        """The address of the function that the file, or the loader, puts at this address of data; 0 if none is."""
        return self._callees.pointer(address)

    def starts(self, function: Function) -> list[int] | None:
        """Return where the instructions of a function begin, in bytes from its start; None if it cannot be decoded."""
        return self.starts_of(function.address, function.size)

    def starts_of(self, start: int, size: int) -> list[int] | None:
        """Return the same as `starts` for `size` bytes of code at the virtual address `start`."""
        if not self._decoder.is_supported:
            return None
        code = self._decoder.decode(start, self._size(start, size))
        if code.problem not in ("", RUNS_ON) or not is_in_step([code]):
            return None
        return [at for at, begins in enumerate(code.begins) if begins == 1]

    def around(self, address: int) -> Destination | None:
        """Return the function that a virtual address lies in, by symbols and call frame information."""
        return self._callees.around(address)

    def _sites(self, body: _Body, start: int, into: Sequence[int]) -> tuple[dict[int, Exit], list[str]]:
        """The exit sites of a body and of the functions that it ends in; and the names of what was not followed."""
        sites: dict[int, Exit] = {}
        ends: dict[str, None] = {}
        followed = {start}
        queue = [body]
        for piece in queue:  # which grows in the loop
            for leave in piece.leaves:
                to = leave.to
                if to is not None and self._follow(to, into, followed, queue, MOST_SITES - len(sites)):
                    continue
                if to is not None:
                    ends[to.name] = None
                offset = self._image.file_offset(leave.at)
                shared = piece is not body or leave.in_fragment
                name = "" if to is None else to.name
                sites[offset] = Exit(offset, leave.kind, leave.condition, shared, to is None, name)
        return sites, list(ends)

    def _follow(
        self, to: Destination, into: Sequence[int], followed: set[int], queue: list[_Body], most_leaves: int
    ) -> bool:
        """Whether a jump can be followed. The exits of its destination, which joins the queue, then count as well."""
        destinations = [to] if to.start else [Destination(to.name, start) for start in into if to.name in _COMPUTED]
        destinations = [destination for destination in destinations if destination.start not in followed]
        callees = [self._callee(destination) for destination in destinations]
        if not destinations:
            return to.start in followed or (bool(into) and to.name in _COMPUTED)
        if (
            any(callee.problem for callee in callees)
            or len(followed) >= _MOST_FOLLOWED
            or sum(len(callee.leaves) for callee in callees) > most_leaves
        ):
            return False
        followed.update(destination.start for destination in destinations)
        queue += callees
        return True

    def _callee(self, to: Destination) -> _Body:
        """The body of a jump's destination, or one with a problem if it must not be followed."""
        if to.name.startswith(_THUNKS) or to.name.endswith(golang.ASSEMBLER):
            return _Body("its exits lead to other code")
        return self._body(to.start, to.size)

    def _size(self, start: int, size: int) -> int:
        """The size of a function, by its call frame information if its symbol has none."""
        if size == 0 and (described := self._frames.covering(start)) is not None and described.start == start:
            return described.end - start
        return size

    def _body(self, start: int, size: int) -> _Body:
        body = self._bodies.get(start)
        if body is None:
            self._bodies[start] = body = self._analysed(start, self._size(start, size))
        return body

    def _analysed(self, start: int, size: int) -> _Body:
        ranges = [self._decoder.decode(start, size)]
        calls = False
        outward: list[Flow] = []
        leaving: list[Flow] = []  # returns, and jumps whose destination is computed
        for code in ranges:  # which grows by the fragments that are found
            if code.problem:
                return _Body(code.problem)
            low, high = code.start, code.start + len(code.begins)
            for flow in code.flows:
                kind = flow.kind
                if kind == CALL:
                    calls = True
                elif kind in (JUMP, BRANCH):
                    target = flow.target
                    if low <= target < high:
                        if not code.begins[target - low]:
                            return _Body(UNDECODABLE)
                    elif not any(decoded.start <= target < decoded.start + len(decoded.begins) for decoded in ranges):
                        fragment = self._callees.fragment(target, kind == BRANCH)
                        if fragment is not None:
                            ranges.append(self._decoder.decode(*fragment))
                        else:
                            outward.append(flow)
                elif kind != STOP:
                    leaving.append(flow)
        if len(ranges) > 1 and not is_in_step(ranges):
            return _Body(UNDECODABLE)
        return self._leaves(ranges, calls, outward, leaving)

    def _leaves(self, ranges: list[Code], calls: bool, outward: list[Flow], leaving: list[Flow]) -> _Body:
        """The body of decoded ranges; `outward` are the jumps that leave them."""
        function_code, frames = ranges[0], self._frames
        at_entry = frames.at_entry
        # Exceptions bring control to places that no jump leads to. Then code that is not reached by jumps may run too.
        described = [frames.covering(code.start) for code in ranges]
        reached = None if any(one is not None and one.has_handlers for one in described) else reached_from_entry(ranges)
        exits: list[tuple[Flow, Kind, Destination | None]] = []
        indirect = [flow for flow in leaving if flow.kind == INDIRECT]
        sure = indirect if reached is None else [flow for flow in indirect if flow.at in reached]
        jumps, has_table = self._indirect_jumps(sure, ranges, reached)
        if has_table and len(sure) < len(indirect):  # then the table leads to more of them
            jumps, _ = self._indirect_jumps(indirect, ranges, reached)
        if jumps is None:
            return _Body("it jumps to an address in a register, to a part of it or elsewhere")
        if reached is not None and not has_table and not self._callees.is_go:
            # Code that is not reached is data, or only called from within, or belongs to another function that shares a
            # fragment. Go is left out: after a panic it continues where no jump leads.
            outward = [flow for flow in outward if flow.at in reached]
            leaving = [flow for flow in leaving if flow.at in reached]
        exits += [(flow, "jump", self._pointed_to(flow)) for flow in jumps]
        exits += [(flow, "return", None) for flow in leaving if flow.kind == RETURN]
        for flow in outward:
            to = self._callees.destination(flow.target)
            if to is None:
                return _Body("it jumps into the middle of another function, or outside of any function")
            if flow.kind == BRANCH and not flow.flags & CONDITION:
                return _Body("it leaves by a branch that does not depend on the flags")
            exits.append((flow, "jump" if flow.kind == JUMP else "branch", to))
        leaves = []
        for flow, kind, to in exits:
            rule = frames.rule(flow.at)
            if rule is not None and rule != at_entry:
                return _Body(_MISFIT)
            if flow.flags & REFUSED:
                return _Body("the kernel puts no probe on an instruction by which it leaves")
            in_fragment = not function_code.start <= flow.at < function_code.start + len(function_code.begins)
            leaves.append(_Leave(flow.at, kind, flow.condition if kind == "branch" else 0, in_fragment, to))
        return _Body("", calls, tuple(leaves))

    def _indirect_jumps(
        self, jumps: list[Flow], ranges: list[Code], reached: set[int] | None
    ) -> tuple[list[Flow] | None, bool]:
        """The indirect jumps that leave the function (None if that is unclear), and whether others are a switch.

        A tail call needs the stack as it was at the entry. A jump through an array where the stack is so can be a tail
        call through an array of functions, or a switch. A switch leads to code of the function that no other jump leads
        to.
        """
        unclear, has_table, at_entry = [], False, self._frames.at_entry
        for flow in jumps:
            rule = self._frames.rule(flow.at)
            if flow.flags & (NOTRACK | TABLE) or (rule is not None and rule != at_entry):
                has_table = True
            elif rule is None and not flow.flags & (MEMORY | ARRAY):
                return None, has_table
            else:
                unclear.append(flow)
        if has_table or not unclear:
            return unclear, has_table
        if reached is None:
            leaving = [flow for flow in unclear if not flow.flags & ARRAY]
        elif all(flow.at in reached for code in ranges for flow in code.flows if flow.kind != STOP):
            leaving = unclear
        else:
            leaving = [flow for flow in unclear if flow.flags & SLOT]
        return leaving, len(leaving) < len(unclear)

    def _pointed_to(self, flow: Flow) -> Destination:
        """Where a jump through a register or memory leads, as far as the file tells."""
        if flow.flags & SLOT:
            return self._callees.of_slot(flow.target) or Destination(_POINTER)
        return Destination(_POINTER if flow.flags & MEMORY else _REGISTER)


def _refusal(function: Function, problem: str) -> UnsupportedError:
    return UnsupportedError(
        f"the returns of {function.name} in {function.path} cannot be found: {problem}",
        hint="trace its entry instead, or a function that calls it",
    )
