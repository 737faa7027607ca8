"""The functions of an allocator → a map in the kernel of all blocks that are allocated now.

Input: a session, and what `providers.libc` knows of the functions. Output: a `KernelMap` by address, with `size`,
`since` and `stack` of each block, and the sources of allocations and frees, for events. Kept right by: an allocator's
own mappings (made between entry and return of its functions) are no blocks; a block that realloc moves is deleted
before its address can be given to another thread, and put back where realloc fails.
"""

from __future__ import annotations

import fnmatch
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any

from usdtkit.bpf.expressions import Expression, arg, deref, now, retval, tid, ustack
from usdtkit.records import dataclass
from usdtkit.signatures import libc
from usdtkit.trace.session import Session
from usdtkit.trace.sources import Pair, Source
from usdtkit.trace.specs import uprobe

if TYPE_CHECKING:
    from usdtkit.trace.stacks import Stack

Sizes = Mapping[str, tuple[int, ...]]
"""Of functions, the numbers of the arguments whose product is the size."""
BLOCK = ("size", "since", "stack")
BLOCKS, THREADS = 500_000, 10_240  # followed at a time


@dataclass(frozen=True)
class Outstanding:
    """What one stack has allocated: so many bytes in so many blocks, and the blocks (`key` is the address)."""

    pid: int
    stack: Stack | None
    size: int
    count: int
    blocks: list[Any]


class Heap:
    """The allocator of a library, whose functions may have a `prefix` ("je_").

    `blocks` are there now: those of `sizes` (from, to) bytes, and of those about one in `one_in`; at most `capacity` of
    them at a time. `allocations` and `frees` are sources, each with the expression of the block's address; allocations
    keep its `size`. NotFoundError where the library has no such functions.
    """

    def __init__(
        self,
        session: Session,
        library: str = "c",
        *,
        prefix: str = "",
        sizes: tuple[int, int] = (0, 2**63),
        one_in: int = 1,
        capacity: int = BLOCKS,
    ) -> None:
        self.blocks = session.map(capacity=capacity, size="u64", since="u64", stack="stack")
        self.allocations: list[tuple[Pair, Expression]] = []
        self.frees: list[tuple[Source, Expression]] = []
        self._session, self._library, self._sizes, self._one_in = session, library, sizes, one_in
        self._allocating = session.map(
            capacity=THREADS, since="u64"
        )  # threads that are within a function of the allocator
        # Each asked for alone, so that the error names what is missing, and no more.
        session.find_functions(library, [f"{prefix}malloc"])
        session.find_functions(library, [f"{prefix}free"])
        known = [*libc.ALLOCATE, *libc.POSIX_MEMALIGN, *libc.REALLOCATE, *libc.FREE]
        wanted = [*(prefix + name for name in known), *libc.NEW, *libc.DELETE]
        there = {function.name for function in session.find_functions(library, wanted)}
        self._allocate(_present({**_prefixed(prefix, libc.ALLOCATE), **libc.NEW}, there))
        self._allocate(_present(_prefixed(prefix, libc.POSIX_MEMALIGN), there), into=True)
        self._reallocate(_present(_prefixed(prefix, libc.REALLOCATE), there))
        self._free(library, _present({**_prefixed(prefix, libc.FREE), **libc.DELETE}, there))
        for mapping in self._pairs("c", libc.MAP):
            self._put(mapping.where((retval != -1) & ~self._allocating.has(tid)), retval)
        self._free("c", libc.UNMAP)

    def outstanding(self, min_age_ns: int = 0) -> list[Outstanding]:
        """What is allocated now, by process and stack; without the blocks that are younger."""
        now_ns = time.monotonic_ns()
        found: dict[tuple[int, Stack | None], list[Any]] = defaultdict(list)
        for block in self.blocks.entries():
            if now_ns - block.since >= min_age_ns:
                found[block.pid, block.stack].append(block)
        return [
            Outstanding(pid, stack, sum(one.size for one in own), len(own), own) for (pid, stack), own in found.items()
        ]

    def _allocate(self, functions: Sizes, *, into: bool = False) -> None:
        """What returns a block, or with `into` 0 and the block where its first argument points to."""
        for pair in self._pairs(self._library, functions, {"into": arg(1)} if into else {}):
            if into:
                self._put(pair.where(retval.cast("i32") == 0), deref(pair.kept("into")))
            else:
                self._put(pair.where(retval != 0), retval)
            self._mark(pair)

    def _reallocate(self, functions: Sizes) -> None:
        """What moves the block of its first argument, or returns NULL and has not; to 0 bytes, it has freed it."""
        old = {f"old_{name}": self.blocks.get(name, arg(1)) for name in BLOCK}
        for pair in self._pairs(self._library, functions, {"old": arg(1), **old}):
            self.frees.append((pair.start.where(arg(1) != 0).delete(self.blocks, arg(1)), arg(1)))
            refused = (retval == 0) & (pair.kept("size") != 0) & (pair.kept("old_since") != 0)
            back = {name: pair.kept(f"old_{name}") for name in BLOCK}
            pair.where(refused).put(self.blocks, pair.kept("old"), **back)
            self._put(pair.where(retval != 0), retval)
            self._mark(pair)

    def _free(self, library: str, functions: Iterable[str]) -> None:
        """What ends the block of its first argument."""
        source = self._session.uprobe(library, *functions).where(arg(1) != 0)
        self.frees.append((source.delete(self.blocks, arg(1)), arg(1)))

    def _pairs(self, library: str, functions: Sizes, keep: Mapping[str, Expression] | None = None) -> Iterator[Pair]:
        for numbers in sorted(set(functions.values())):
            names = [name for name, own in functions.items() if own == numbers]
            size: Expression = reduce(mul, map(arg, numbers))
            yield self._session.pair(uprobe(library, *names), keep={"size": size, **(keep or {})})

    def _put(self, pair: Pair, block: Expression) -> None:
        size, (low, high) = pair.kept("size"), self._sizes
        pair = pair.where((size >= low) & (size <= high))
        if self._one_in > 1:
            pair = pair.where(now % self._one_in == 0)
        pair.put(self.blocks, block, size=size, since=now, stack=ustack)
        self.allocations.append((pair, block))

    def _mark(self, pair: Pair) -> None:
        pair.start.put(self._allocating, tid, since=now)
        pair.delete(self._allocating, tid)


def _prefixed(prefix: str, functions: Sizes) -> Sizes:
    return {prefix + name: numbers for name, numbers in functions.items()}


def _present(functions: Sizes, there: Iterable[str]) -> Sizes:
    """Of functions, globs among them, those that a library has."""
    return {name: own for pattern, own in functions.items() for name in fnmatch.filter(there, pattern)}
