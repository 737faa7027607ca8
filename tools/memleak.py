"""Show memory that was allocated and not freed, by the stacks that allocated it.

Follows malloc, calloc, realloc and their kin, free, mmap and munmap in the C library, or with -O in another allocator
(jemalloc, tcmalloc), from the start of the trace on. What a table in the kernel holds at the time is shown: every 5
seconds, and at the end. Younger than 500 ms (-o) is most likely still in use, and left out; of a command (-c) nothing.

examples:
  usdtkit memleak -p 1234                      every 5 seconds
  usdtkit memleak -p 1234 10 3 -a              three times every 10 seconds, with each block
  usdtkit memleak -c './program --once' -f > leaks.folded
  usdtkit memleak -p 1234 -O jemalloc -s 100   one allocation in 100
"""

import argparse
from typing import Any

from usdtkit.cli import run as cli
from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.values import count, milliseconds, positive, seconds
from usdtkit.errors import UsageError
from usdtkit.output import folded
from usdtkit.output.report import PID, TIME, Column, Report
from usdtkit.output.text import printable
from usdtkit.trace import ms
from usdtkit.trace.heap import BLOCKS, Heap

TOPIC = "memory and locks"
VARIANTS = ("-p 1", "-p 1 -s 2", "-p 1 -t")

EVENTS = [TIME, PID, Column("FUNCTION", "function", 16), Column("BYTES", "bytes", 12), Column("ADDRESS", "address", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit memleak`."""
    add = parser.add_argument
    add("interval", nargs="?", type=seconds, default=5.0, metavar="INTERVAL", help="seconds between two looks (5)")
    add("intervals", nargs="?", type=positive, metavar="COUNT", help="end after so many looks")
    add("-t", "--trace", action="store_true", help="show each allocation and free instead")
    add("-a", "--show-allocs", action="store_true", help="each block, not only the sums")
    add("-o", "--older", type=milliseconds, metavar="AGE_MS", help="only blocks of this age (500; with -c 0)")
    add("-s", "--sample-rate", type=positive, default=1, metavar="N", help="follow about one allocation in N")
    add("-T", "--top", type=positive, default=10, metavar="N", help="so many stacks (10)")
    add("-z", "--min-size", type=count, default=0, metavar="BYTES", help="only blocks of so many bytes or more")
    add("-Z", "--max-size", type=count, default=2**63, metavar="BYTES", help="only blocks of so many bytes or fewer")
    add("-O", "--obj", default="c", metavar="LIBRARY", help="where the allocator is: a path, or a name (jemalloc)")
    add("--symbols-prefix", default="", metavar="PREFIX", help="what the allocator's names begin with (je_)")
    add("--sort", choices=("size", "count"), default="size", help="which stacks come first, and what -f counts")
    add("-f", "--folded", action="store_true", help="folded lines, for flame graphs")
    add("--combined-only", "--wa-missing-free", action="store_true", help="accepted; bcc needs it")
    add_session_options(parser, capacity="follow so many blocks at a time (500,000)")


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    if not options.pid and not options.command:
        raise UsageError("memleak needs a process", hint="-p PID, or -c CMD to start one")
    options.timestamp = not options.folded
    with cli.new_session(options, capacity=None) as session:
        limits = {"sizes": (options.min_size, options.max_size), "one_in": options.sample_rate}
        heap = Heap(session, options.obj, prefix=options.symbols_prefix, capacity=options.capacity or BLOCKS, **limits)
        if not options.trace:
            return cli.follow_intervals(session, options, "memleak", (), lambda report: write(report, heap, options))
        for source, address in heap.allocations:
            source.emit(address=address, bytes=source.kept("size"))
        for free, address in heap.frees:
            free.emit(address=address)
        return cli.follow(session, options, "memleak", EVENTS, describe=describe)


def describe(event: Any) -> dict[str, Any]:
    """A row of an allocation, or of a free."""
    row = {name: getattr(event, name) for name in ("time_ns", "pid", "tid")}
    return {**row, "function": event.probe, "bytes": getattr(event, "bytes", None), "address": hex(event.address)}


def write(report: Report, heap: Heap, options: argparse.Namespace) -> None:
    """The stacks that have most, in the table the last one most, as bcc has it."""
    age = options.older if options.older is not None else 0 if options.command else 500
    rows = sorted(heap.outstanding(ms(age)), key=lambda row: getattr(row, options.sort), reverse=True)[: options.top]
    if report.format == "table" and not options.folded:
        print(f"Top {options.top} stacks with outstanding allocations:")
        rows.reverse()
    folded.learn(row.stack for row in rows)
    for row in rows:
        labels = folded.labels(row.stack, offsets=not options.folded)
        if report.format != "table":
            whole = [{"bytes": row.size, "count": row.count}]
            blocks = [{"bytes": one.size, "address": hex(one.key), "since_ns": one.since} for one in row.blocks]
            same = {"pid": row.pid, "stack": folded.cell(labels, report.format)}
            report.block({**one, **same} for one in (blocks if options.show_allocs else whole))
        elif options.folded:
            print(folded.line(reversed(labels), getattr(row, options.sort)))
        else:
            print(f"\t{row.size} bytes in {row.count} allocations from stack")
            print(*(f"\t\t{printable(label)}" for label in labels), sep="\n")
            for one in row.blocks if options.show_allocs else ():
                print(f"\taddr = {one.key:#x} size = {one.size}")
    print(end="", flush=True)
