"""Show memory that was allocated and not freed, by the stacks that allocated it.

From the start of the trace on, all functions that allocate or free memory are followed: malloc, calloc, realloc and so
on, free, mmap and munmap in the C library, or with -O those of another allocator (jemalloc, tcmalloc). Every 5 seconds
and at the end, memleak shows what is allocated at that time. Blocks younger than 500 ms (-o) are left out, because they
are most likely still in use; of a command (-c) all blocks are shown.

examples:
  usdtkit memleak -p 1234                      every 5 seconds
  usdtkit memleak -p 1234 10 3 -a              three times every 10 seconds, with each block
  usdtkit memleak -c './program --once' -f > leaks.folded
  usdtkit memleak -p 1234 -O jemalloc -s 100   one allocation in 100
"""

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.arguments import Spelling, StackOptions
from usdtkit.cli.options import option
from usdtkit.cli.values import count, milliseconds, positive, seconds
from usdtkit.errors import UsageError
from usdtkit.providers.heap import BLOCK_CAPACITY, Heap, Outstanding
from usdtkit.records import replace
from usdtkit.results import PID, TID, TIME, Column, Results, Rows, StackSum, Summaries, Table
from usdtkit.trace import Session, ms

TOPIC = "memory and locks"
SCHEMA_VERSION = 2
VARIANTS = ("-p 1", "-p 1 -s 2", "-p 1 -t")
SPELLING = Spelling(capacity="track at most N blocks at a time (default 500,000)", timestamps=True)
COLUMNS = (
    *(TIME, PID, replace(TID, heading="", optional=True)),
    Column("function", "FUNCTION", width=16, meaning="with -t: the function that was called", optional=True),
    Column("bytes", "BYTES", "count", 12, "the size; null of a free", nullable=True, role="weight"),
    Column("address", "ADDRESS", meaning="with -t and -a: the address of the block", optional=True),
    Column("count", type="count", meaning="how many blocks the stack has allocated", optional=True),
    Column("since_ns", type="integer", meaning="with -a: when the block was allocated", optional=True),
    Column("stack", type="stack", meaning="the frames, innermost first", offsets="table", optional=True),
)


class Options(StackOptions):
    """Options of `usdtkit memleak`."""

    interval: float = option(
        type=seconds, default=5.0, metavar="INTERVAL", help="print every INTERVAL seconds (default 5)"
    )
    intervals: int | None = option(type=positive, default=None, metavar="COUNT", help="stop after COUNT intervals")
    trace: bool = option("-t", "--trace", default=False, help="show each allocation and free as it happens, instead")
    show_allocs: bool = option("-a", "--show-allocs", default=False, help="show each block, not only the sums")
    older_ms: float | None = option(
        *("-o", "--older"),
        type=milliseconds,
        default=None,
        metavar="AGE_MS",
        help="only blocks that are AGE_MS ms old or older (default 500, with -c 0)",
    )
    sample_rate: int = option(
        *("-s", "--sample-rate"), type=positive, default=1, metavar="N", help="follow about one allocation in N"
    )
    top: int = option("-T", "--top", type=positive, default=10, metavar="N", help="show the top N stacks (default 10)")
    min_size: int = option(
        *("-z", "--min-size"), type=count, default=0, metavar="BYTES", help="only blocks of BYTES bytes or more"
    )
    max_size: int = option(
        *("-Z", "--max-size"), type=count, default=2**63, metavar="BYTES", help="only blocks of BYTES bytes or fewer"
    )
    library: str = option(
        *("-O", "--obj"),
        default="c",
        metavar="LIBRARY",
        help="the allocator: a path, or the name of a library such as jemalloc",
    )
    symbols_prefix: str = option(
        "--symbols-prefix", default="", metavar="PREFIX", help="what the names of the allocator begin with, such as je_"
    )
    sort: str = option(
        "--sort", choices=("size", "count"), default="size", help="which stacks are the top ones, and what -f counts"
    )
    folded: bool = option(
        *("-f", "--folded"), dest="format", const="folded", default=None, help="write folded lines, for flame graphs"
    )
    capacity: int | None = option(dest="capacity", default=None)
    combined_only: bool = option(
        "--combined-only", "--wa-missing-free", default=False, help="accepted for compatibility with bcc; has no effect"
    )


def trace(session: Session, options: Options) -> Results:
    """Follow an allocator; the outstanding blocks at the end of each interval, or each call with -t."""
    if not session.pids:
        raise UsageError("memleak needs a process", hint="-p PID, or -c CMD to start one")
    heap = Heap(
        *(session, options.library),
        prefix=options.symbols_prefix,
        min_size=options.min_size,
        max_size=options.max_size,
        one_in=options.sample_rate,
        capacity=options.capacity or BLOCK_CAPACITY,
    )
    if options.trace:
        heap.allocations.emit("address", "size")
        heap.frees.emit("address")
        return Rows(session, [column for column in COLUMNS if column.heading or column.name == "tid"], describe)
    age_ms = options.older_ms if options.older_ms is not None else 0 if session.command else 500

    def summarise() -> Iterator[Table | StackSum]:
        yield Table((), f"Top {options.top} stacks with outstanding allocations:")
        for row in sorted(heap.outstanding(ms(age_ms)), key=lambda row: getattr(row, options.sort))[-options.top :]:
            yield stack_sum(row, getattr(row, options.sort), each_block=options.show_allocs)

    return Summaries(session, [replace(column, heading="") for column in COLUMNS], summarise)


def describe(event: Any) -> Mapping[str, Any]:
    """A row of an allocation, or of a free."""
    row = {name: getattr(event, name) for name in ("time_ns", "pid", "tid")}
    return {**row, "function": event.probe, "bytes": getattr(event, "size", None), "address": hex(event.address)}


def stack_sum(row: Outstanding, weight: int, *, each_block: bool) -> StackSum:
    """A stack and its allocations, in the words of bcc's tool; perhaps with each of its blocks."""
    blocks = row.blocks if each_block else []
    return StackSum(
        *(row.stack, weight, {"pid": row.pid, "bytes": row.size, "count": row.count}),
        before=[f"\t{row.size} bytes in {row.count} allocations from stack"],
        after=[f"\taddr = {block.key:#x} size = {block.size}" for block in blocks],
        indent="\t\t",
        parts=[
            {"pid": row.pid, "bytes": block.size, "address": hex(block.key), "since_ns": block.since}
            for block in blocks
        ],
    )
