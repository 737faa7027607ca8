"""Memory that a program has allocated and not freed: a map in the kernel of all blocks that are allocated now.

    from usdtkit import trace
    from usdtkit.providers.heap import Heap

    with trace.Session(pid=4711) as session:
        heap = Heap(session, min_size=31, max_size=31)
        for _ in session.intervals(0.5):
            if outstanding := heap.outstanding():
                print(outstanding[0].stack.frames[0].name, outstanding[0].size == outstanding[0].count * 31)
                break

Input: a session, and the functions of an allocator, whose names are below. Output: `Heap.outstanding`, the blocks by
the stack that allocated them, and sources of the single allocations and frees.

Two rules keep the map right. Memory that an allocator maps for itself, between entry and return of its own functions,
does not count as a block. A block that realloc moves is deleted before its address can be given to another thread, and
put back if realloc fails.
"""

from __future__ import annotations

import fnmatch
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import mul
from typing import Any

from usdtkit.records import dataclass
from usdtkit.trace import (
    Expression,
    Pair,
    Session,
    Source,
    Sources,
    Stack,
    arg,
    deref,
    now,
    retval,
    tid,
    uprobe,
    ustack,
)

Sizes = Mapping[str, tuple[int, ...]]
"""The numbers of the arguments whose product is the size of a block, for each function."""

# These return the block.
ALLOCATE: Sizes = {
    **dict.fromkeys(("malloc", "valloc", "pvalloc"), (1,)),
    **dict.fromkeys(("aligned_alloc", "memalign"), (2,)),
    "calloc": (1, 2),
}
# This returns 0 for success, and stores the block where its first argument points to.
POSIX_MEMALIGN: Sizes = {"posix_memalign": (3,)}
# These move the block that is their first argument.
REALLOCATE: Sizes = {"realloc": (2,), "reallocarray": (2, 3)}
# This frees the block that is its first argument.
FREE: Sizes = {"free": ()}
# C++'s operators, mangled, with globs for their variants. Those of libstdc++ call malloc and free; an allocator's own
# need not.
NEW: Sizes = {"_Znwm*": (1,), "_Znam*": (1,)}
DELETE: Sizes = {"_ZdlPv*": (), "_ZdaPv*": ()}
# Mappings are made by this function of the C library, which returns -1 if it fails.
MAP: Sizes = {"mmap": (2,)}
UNMAP = ("munmap",)

BLOCK = ("size", "since", "stack")
BLOCK_CAPACITY = 500_000
THREAD_CAPACITY = 10_240  # threads that are within the allocator at one time


@dataclass(frozen=True)
class Outstanding:
    """The memory that one stack of a process has allocated: `size` bytes in `count` blocks.

    Each of `blocks` has its address as `key`, its `size`, and `since`, the time in nanoseconds at which it was
    allocated.
    """

    pid: int
    stack: Stack | None
    size: int
    count: int
    blocks: list[Any]


class Heap:
    """The allocator of a library, whose functions may have a `prefix` such as "je_".

    Blocks of a size from `min_size` to `max_size` bytes are followed, about one in `one_in` of them, and at most
    `capacity` at one time. `allocations` are pairs from call to return, which know `address` and `size`; `frees` are
    sources that know `address`. NotFoundError if the library has no such functions.
    """

    def __init__(
        self,
        session: Session,
        library: str = "c",
        *,
        prefix: str = "",
        min_size: int = 0,
        max_size: int = 2**63,
        one_in: int = 1,
        capacity: int = BLOCK_CAPACITY,
    ) -> None:
        self.blocks = session.map(capacity=capacity, size="u64", since="u64", stack="stack")
        self._session, self._library, self._one_in = session, library, one_in
        self._min_size, self._max_size = min_size, max_size
        self._allocations: list[Pair] = []
        self._frees: list[Source] = []
        self._allocating = session.map(
            capacity=THREAD_CAPACITY, since="u64"
        )  # threads within a function of the allocator
        # Each is looked for by itself, so that the error names only what is missing.
        session.find_functions(library, [f"{prefix}malloc"])
        session.find_functions(library, [f"{prefix}free"])
        names = [prefix + name for table in (ALLOCATE, POSIX_MEMALIGN, REALLOCATE, FREE) for name in table]
        functions = session.find_functions(library, [*names, *NEW, *DELETE])
        present = {function.name for function in functions}
        self._allocate(_present({**_prefixed(prefix, ALLOCATE), **NEW}, present))
        self._allocate_into(_present(_prefixed(prefix, POSIX_MEMALIGN), present))
        self._reallocate(_present(_prefixed(prefix, REALLOCATE), present))
        self._free(library, _present({**_prefixed(prefix, FREE), **DELETE}, present))
        for mapping in self._pairs("c", MAP):
            self._put(mapping.where((retval != -1) & ~self._allocating.has(tid)), retval)
        self._free("c", UNMAP)
        self.allocations = Sources(*self._allocations)
        self.frees = Sources(*self._frees)

    def outstanding(self, min_age_ns: int = 0) -> list[Outstanding]:
        """The blocks that are allocated now, by process and stack, without those that are younger than `min_age_ns`."""
        now_ns = time.monotonic_ns()
        by_stack: dict[tuple[int, Stack | None], list[Any]] = defaultdict(list)
        for block in self.blocks.entries():
            if now_ns - block.since >= min_age_ns:
                by_stack[block.pid, block.stack].append(block)
        return [
            Outstanding(pid, stack, sum(block.size for block in blocks), len(blocks), blocks)
            for (pid, stack), blocks in by_stack.items()
        ]

    def _allocate(self, functions: Sizes) -> None:
        for pair in self._pairs(self._library, functions):
            self._put(pair.where(retval != 0), retval)
            self._mark(pair)

    def _allocate_into(self, functions: Sizes) -> None:
        for pair in self._pairs(self._library, functions, {"into": arg(1)}):
            self._put(pair.where(retval.cast("i32") == 0), deref(pair.kept("into")))
            self._mark(pair)

    def _reallocate(self, functions: Sizes) -> None:
        """Follow a block that is moved. NULL means that it was not moved, or if the size is 0, that it was freed."""
        old = {f"old_{name}": self.blocks.get(name, arg(1)) for name in BLOCK}
        for pair in self._pairs(self._library, functions, {"old": arg(1), **old}):
            self._take(pair.start)
            refused = (retval == 0) & (pair.kept("size") != 0) & (pair.kept("old_since") != 0)
            back = {name: pair.kept(f"old_{name}") for name in BLOCK}
            pair.where(refused).put(self.blocks, pair.kept("old"), **back)
            self._put(pair.where(retval != 0), retval)
            self._mark(pair)

    def _free(self, library: str, functions: Iterable[str]) -> None:
        self._take(self._session.uprobe(library, *functions))

    def _pairs(self, library: str, functions: Sizes, keep: Mapping[str, Expression] | None = None) -> Iterator[Pair]:
        """Calls of the functions, which keep the size: one pair for all that have it in the same arguments."""
        for numbers in sorted(set(functions.values())):
            names = [name for name, counts in functions.items() if counts == numbers]
            size: Expression = reduce(mul, map(arg, numbers))
            yield self._session.pair(uprobe(library, *names), keep={"size": size, **(keep or {})})

    def _put(self, pair: Pair, block: Expression) -> None:
        """Make an entry for a block, at the return of the function that allocated it."""
        size = pair.kept("size")
        pair = pair.where((size >= self._min_size) & (size <= self._max_size))
        if self._one_in > 1:
            pair = pair.where(now % self._one_in == 0)
        pair.put(self.blocks, block, size=size, since=now, stack=ustack)
        self._allocations.append(pair.derive("size", address=block))

    def _take(self, source: Source) -> None:
        """Delete the entry of the block that is the first argument of a function."""
        source = source.where(arg(1) != 0).delete(self.blocks, arg(1))
        # The first argument of munmap has this name already.
        self._frees.append(source if "address" in source.arguments else source.derive(address=arg(1)))

    def _mark(self, pair: Pair) -> None:
        """Keep track of the threads that are within a function of the allocator."""
        pair.start.put(self._allocating, tid, since=now)
        pair.delete(self._allocating, tid)


def _prefixed(prefix: str, functions: Sizes) -> Sizes:
    return {prefix + name: numbers for name, numbers in functions.items()}


def _present(functions: Sizes, present: Iterable[str]) -> Sizes:
    """The functions that a library has, by their own names in place of globs."""
    return {name: numbers for pattern, numbers in functions.items() for name in fnmatch.filter(present, pattern)}
