"""Find mutexes that threads lock in opposite order: deadlocks that can happen, even if they did not in this run.

deadlock draws an edge from each mutex that a thread holds to the mutex that it wants, and looks for cycles. The first
cycle is shown with the stacks of its edges, and ends the trace with exit code 1, as in bcc; with --all the trace goes
on. A cycle whose edges were all seen under one other mutex is no deadlock, and not shown. Each lock and unlock is an
event. If events are lost, cycles may be missing or wrong.

examples:
  usdtkit deadlock 1234
  usdtkit deadlock -c ./program --all
  usdtkit deadlock 1234 --binary /usr/lib/libmy.so --lock-symbols my_lock --unlock-symbols my_unlock
"""

from collections.abc import Iterator, Mapping
from typing import Any

from usdtkit.cli.arguments import Spelling, StackOptions, process_argument
from usdtkit.cli.options import option
from usdtkit.providers import locks
from usdtkit.providers.lockorder import Cycle
from usdtkit.records import replace
from usdtkit.results import COMM, PID, TID, TIME, Column, Summaries, Table
from usdtkit.trace import Session

TOPIC = "memory and locks"
SCHEMA_VERSION = 2
SPELLING = Spelling(ring_size=1 << 26)
COLUMNS = (
    *(replace(TIME, heading=""), replace(PID, heading=""), TID, COMM),
    Column("cycle", type="count", meaning="the number of the cycle, in the order in which they were found"),
    Column("wanted_name", "WANTED", width=6, meaning="the mutex that the thread wanted", table_only=True),
    Column("held_name", "HELD", width=6, meaning="the mutex that it held meanwhile", table_only=True),
    Column("wanted", meaning="the address of the mutex that the thread wanted"),
    Column("held", meaning="the address of the mutex that it held meanwhile"),
    Column("wanted_at", type="stack", meaning="where it wanted the one: frames, innermost first", above="wanted at"),
    Column("held_at", type="stack", meaning="where it took the other: frames, innermost first", above="held since"),
)


def names(text: str) -> tuple[str, ...]:
    """For argparse: names with commas between them."""
    return tuple(text.split(","))


class Options(StackOptions):
    """Options of `usdtkit deadlock`."""

    process: int | str | None = process_argument()
    binary: str = option("--binary", default="", metavar="FILE", help="the file with the functions (the C library)")
    lock_symbols: tuple[str, ...] = option(
        "--lock-symbols", type=names, default=(), metavar="NAME,…", help=f"the functions that lock ({locks.LOCK})"
    )
    unlock_symbols: tuple[str, ...] = option(
        "--unlock-symbols", type=names, default=(), metavar="NAME,…", help=f"the functions that unlock ({locks.UNLOCK})"
    )
    all: bool = option("-a", "--all", default=False, help="go on after the first cycle")


def trace(session: Session, options: Options) -> Summaries:
    """Watch locks until a cycle is found; the cycles at the end, each as a table of its edges."""
    watch = locks.orders(session, options.binary, locks=options.lock_symbols, unlocks=options.unlock_symbols)
    cycles: list[Cycle] = []

    def take(event: Any) -> None:
        cycles.extend(watch.take(event))
        if cycles and not options.all:
            session.stop()

    def summarise() -> Iterator[Table]:
        for number, cycle in enumerate(cycles, 1):
            yield table(number, cycle)

    return Summaries(session, COLUMNS, summarise, take=take, exit_code=lambda: 1 if cycles else 0)


def table(number: int, cycle: Cycle) -> Table:
    """The edges of a cycle."""
    mutexes = {edge.held: f"M{n}" for n, edge in enumerate(cycle)}
    addresses = ", ".join(f"{name} = {address:#x}" for (_, address), name in mutexes.items())
    rows: list[Mapping[str, Any]] = [
        {
            **{name: getattr(edge.wanted_at, name) for name in ("time_ns", "pid", "tid", "comm")},
            **{"cycle": number, "wanted": hex(edge.wanted[1]), "held": hex(edge.held[1])},
            **{"wanted_name": mutexes[edge.wanted], "held_name": mutexes[edge.held]},
            **{"wanted_at": edge.wanted_at.stack, "held_at": edge.held_at.stack},
        }
        for edge in cycle
    ]
    way = " -> ".join([*mutexes.values(), "M0"])
    return Table(rows, f"Potential deadlock: {way}, each held while the next is wanted ({addresses})")
