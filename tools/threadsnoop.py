"""Show threads as they are created, with the function that each begins in.

Traces pthread_create in every C library that a process maps and in programs that are linked statically; with -p, in the
files of that process. It is called by C, C++ and Rust programs and by the runtimes of other languages, but not by Go. A
line appears when the call returns. If the program has no symbol for the function, its file and the address in it are
shown.

examples:
  usdtkit threadsnoop
  usdtkit threadsnoop -p 1234
  usdtkit threadsnoop --comm java
"""

from functools import partial

from usdtkit.cli.arguments import Spelling
from usdtkit.cli.options import ToolOptions
from usdtkit.providers import threads
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.trace import Session

TOPIC = "any function or probe"
SPELLING = Spelling(filters={})
COLUMNS = (
    *(TIME, PID, COMM),
    Column("result", "RESULT", width=8, meaning="ok, or the name of an errno"),
    Column("function", "FUNC", meaning="where the thread begins: a function, or file+0xaddress"),
    Column("returned", type="integer", meaning="the value that pthread_create returned: 0, or an errno"),
    *(replace(TID, heading="", meaning="the thread that called pthread_create"), PROBE),
    replace(LATENCY_MS, heading=""),
)


class Options(ToolOptions):
    """Options of `usdtkit threadsnoop`."""


def trace(session: Session, options: Options) -> Rows:
    """Trace the creation of threads; a row when a thread was created, or when that failed."""
    threads.creations(session).emit()
    return Rows(session, COLUMNS, partial(threads.describe, session))
