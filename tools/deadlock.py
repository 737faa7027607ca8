"""Find mutexes that threads lock in opposite order: deadlocks that can happen, though they did not in this run.

Draws an edge from each mutex that a thread holds to the one it wants, and looks for circles in that. The first is shown
with the stacks of its edges, and ends the trace with exit code 1, as with bcc; with --all it goes on. A circle whose
edges were all seen under one other mutex is none. Each lock and unlock is an event: where some are lost, circles may be
missing, or wrong.

examples:
  usdtkit deadlock 1234
  usdtkit deadlock -c ./program --all
  usdtkit deadlock 1234 --binary /usr/lib/libmy.so --lock-symbols my_lock --unlock-symbols my_unlock
"""

import argparse
from typing import Any

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import follow, new_session
from usdtkit.cli.values import pid
from usdtkit.output import folded
from usdtkit.output.report import Report
from usdtkit.output.text import printable
from usdtkit.providers import locks
from usdtkit.providers.lockorder import Cycle

TOPIC = "memory and locks"

RING_SIZE = 1 << 26


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit deadlock`."""
    parser.add_argument("process", nargs="?", type=pid, metavar="PID", help="as -p PID")
    parser.add_argument("--binary", metavar="FILE", help="where the symbols are, if not in the C library")
    parser.add_argument("--lock-symbols", type=names, metavar="NAME,…", help=f"instead of {locks.LOCK}")
    parser.add_argument("--unlock-symbols", type=names, metavar="NAME,…", help=f"instead of {locks.UNLOCK}")
    parser.add_argument("-a", "--all", action="store_true", help="go on after the first circle")
    add_session_options(parser)


def names(text: str) -> tuple[str, ...]:
    """For argparse: names with commas between them."""
    return tuple(text.split(","))


def run(options: argparse.Namespace) -> int:
    """Trace until a circle is found, or told to stop; exit code 1 where one was found."""
    pids = [*([options.process] if options.process else []), *(options.pid or [])]
    found: list[Cycle] = []
    with new_session(options, pids=pids or None, ring_size=RING_SIZE) as session:
        watch = locks.orders(
            session, options.binary or "", locks=options.lock_symbols or (), unlocks=options.unlock_symbols or ()
        )

        def note(event: Any) -> None:
            found.extend(watch.take(event))
            if found and not options.all:
                session.stop()

        code = follow(session, options, "deadlock", (), describe=note, finish=lambda report: show(report, found))
    return 1 if found else code


def show(report: Report, cycles: list[Cycle]) -> None:
    """Each edge of the circles as a row; in the table with its stacks below."""
    folded.learn(at.stack for cycle in cycles for edge in cycle for at in (edge.wanted_at, edge.held_at))
    for number, cycle in enumerate(cycles, 1):
        mutexes = {edge.held: f"M{n}" for n, edge in enumerate(cycle)}
        if report.format == "table":
            print(f"\nPotential deadlock: {' -> '.join([*mutexes.values(), 'M0'])}, each held while the next is wanted")
            print(*(f"  {name} = {mutex[1]:#x}" for mutex, name in mutexes.items()), sep="\n")
        for edge in cycle:
            at, wanted, held = edge.wanted_at, folded.labels(edge.wanted_at.stack), folded.labels(edge.held_at.stack)
            if report.format == "table":
                print(f"\nThread {at.tid} ({printable(at.comm)}) wanted {mutexes[edge.wanted]} at")
                print(*(f"    {printable(label)}" for label in wanted), sep="\n")
                print(f"  while it held {mutexes[edge.held]}, since")
                print(*(f"    {printable(label)}" for label in held), sep="\n")
                continue
            row = {name: getattr(at, name) for name in ("time_ns", "pid", "tid", "comm")} | {"cycle": number}
            row |= {"wanted": hex(edge.wanted[1]), "held": hex(edge.held[1])}
            row |= {"wanted_at": folded.cell(wanted, report.format), "held_at": folded.cell(held, report.format)}
            report.row(row)
