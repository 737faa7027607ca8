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
from functools import partial

from usdtkit.cli.arguments import add_filter_options, add_session_options
from usdtkit.cli.run import follow, narrow, new_session
from usdtkit.output.report import COMM, PID, TIME, Column
from usdtkit.providers import threads

TOPIC = "any function or probe"

COLUMNS = [TIME, PID, COMM, Column("RESULT", "result", 8), Column("FUNC", "function", 0)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit threadsnoop`."""
    add_filter_options(parser)
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with new_session(options) as session:
        narrow(session, options)
        threads.creations(session).emit()
        return follow(session, options, "threadsnoop", COLUMNS, describe=partial(threads.describe, session))
