"""Show the garbage collections of Node.js: of which kind, why, and how long the program stood still.

Traces V8's Heap::PerformGarbageCollection, since Node carries no probes since version 19. Without -p or -c it traces
every node that runs here. A thread of workers has a heap of its own: its collections come with its TID.

examples:
  usdtkit nodegc
  usdtkit nodegc -p 1234 -m 10             pauses of 10 ms or longer
  usdtkit nodegc -c 'node server.js' --json
"""

import argparse
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_session_options, milliseconds
from usdtkit.cli.run import first_found, follow, new_session, running
from usdtkit.output.report import PID, TIME, Column
from usdtkit.output.report import milliseconds as as_ms
from usdtkit.providers.node import COLLECT_GARBAGE, COLLECTION_REASONS, COLLECTORS, LIBRARIES, PROGRAMS
from usdtkit.trace import Pair, Session, arg, ms, uprobe

TOPIC = "languages"
VARIANTS = ("-p 1",)

COLUMNS = [
    *(TIME, PID, Column("TID", "tid", 7, right=True), Column("PAUSE(ms)", "latency_ns", 9, as_ms, right=True)),
    *(Column("TYPE", "type", 18), Column("REASON", "reason", 0)),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit nodegc`."""
    parser.add_argument("-m", "--min-ms", type=milliseconds, default=0.0, metavar="MS", help="only pauses this long")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options, pids=running(options, *PROGRAMS)) as session:
        collections = first_found(LIBRARIES, lambda library: collections_of(session, library))
        collections.where(collections.latency >= ms(options.min_ms)).emit("latency", "collector", "reason")
        return follow(session, options, "nodegc", COLUMNS, describe=describe)


def collections_of(session: Session, library: str) -> Pair:
    """The collections of Node in this program or library."""
    keep = {"collector": arg(2).cast("u32"), "reason": arg(3).cast("u32")}
    return session.pair(uprobe(library, COLLECT_GARBAGE), keep=keep)


def describe(event: Any) -> Mapping[str, Any]:
    """A row of an event."""
    row: dict[str, Any] = event._asdict()
    del row["probe"]  # always the same, and mangled
    row["type"] = named(COLLECTORS, row.pop("collector"))
    row["reason"] = named(COLLECTION_REASONS, row["reason"])
    return row


def named(names: tuple[str, ...], number: int) -> str:
    """The name of a number; the number itself where it is newer than we are."""
    return names[number] if number < len(names) else str(number)
