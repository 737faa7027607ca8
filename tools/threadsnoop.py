"""Show threads as they are created, with the function that each begins in.

Traces pthread_create in every C library that is mapped, or with -p in the one that the process maps, also where it was
linked into the program. Threads of C, C++ and Rust programs, and of the runtimes of other languages; Go makes its own.
A line appears when the call returns. Where the program has no symbol for the function, its file and the address in it
are shown.

examples:
  usdtkit threadsnoop
  usdtkit threadsnoop -p 1234
  usdtkit threadsnoop --comm java
"""

import argparse
import errno
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_filter_options, add_session_options
from usdtkit.cli.run import filtered, first_found, follow, new_session
from usdtkit.output.report import COMM, PID, TIME, Column
from usdtkit.trace import Pair, arg, comm, retval, uprobe

TOPIC = "any function or probe"

COLUMNS = [TIME, PID, COMM, Column("RESULT", "result", 8), Column("FUNC", "function", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit threadsnoop`."""
    add_filter_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:

        def creations(library: str) -> Pair:
            return session.pair(uprobe(library, "pthread_create"), keep={"start": arg(3)})

        def describe(event: Any) -> Mapping[str, Any]:
            row: dict[str, Any] = event._asdict()
            row["function"] = session.symbol(event.pid, row.pop("start")).label
            row["result"] = errno.errorcode.get(event.returned, "?") if event.returned else "ok"
            return row

        # Before glibc 2.34 it is in a library of its own.
        calls = first_found(("c", "pthread"), creations)
        for pid in options.pid or ():
            session.symbol(pid, 0)  # so that what it maps is known also when it has ended
        filtered(calls, options).emit("latency", "start", comm=comm, returned=retval.cast("i32"))
        return follow(session, options, "threadsnoop", COLUMNS, describe=describe)
