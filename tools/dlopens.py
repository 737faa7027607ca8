"""Show the libraries that programs load at run time: calls of dlopen, their flags and their results.

Plugins, Python's extension modules, database drivers and codecs are loaded this way. A line appears when a call
returns, with the name that the program asked for, which is not always a path, and the handle, or NULL if the library
could not be loaded. The calls are traced in every C library that a process maps and in programs that are linked
statically; with -p, in the files of that process.

examples:
  usdtkit dlopens -c 'python3 -c "import ssl"'
  usdtkit dlopens -p 1234 -m 10      calls of 10 ms or longer
  usdtkit dlopens -x                 only what could not be loaded
"""

from typing import Any

from usdtkit.cli.arguments import Spelling, min_ms_option
from usdtkit.cli.options import ToolOptions, option
from usdtkit.providers.alternatives import first_found
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, PROBE, TID, TIME, Column, Rows
from usdtkit.trace import Resolved, Session, arg, cstr, latency, ms, retval, uprobe

TOPIC = "any function or probe"
VARIANTS = ("", "-m 1", "-x", "-x -m 1")
SPELLING = Spelling(filters={})
# The first two bits say when functions are bound; the others may be added to either. glibc and musl agree on all.
FLAGS = {1: "LAZY", 2: "NOW", 4: "NOLOAD", 8: "DEEPBIND", 0x100: "GLOBAL", 0x1000: "NODELETE"}
LIBRARIES = ("c", "dl")  # before its version 2.34, glibc has these functions in libdl
MAIN_PROGRAM = "[main program]"


def result_text(handle: int) -> str:
    """What a table shows of a handle."""
    return f"{handle:#x}" if handle else "NULL"


def flags_text(flags: int) -> str:
    """Flags as C code spells them: "RTLD_NOW|RTLD_GLOBAL", with bits that have no name in hexadecimal."""
    words = [f"RTLD_{word}" for bit, word in FLAGS.items() if flags & bit]
    unknown = flags & ~sum(FLAGS)
    return "|".join(words + ([f"{unknown:#x}"] if unknown else [])) or "0"


COLUMNS = (
    *(TIME, PID, COMM, LATENCY_MS, replace(TID, heading="")),
    Column("handle", "RESULT", "integer", 14, "the handle, or 0 if nothing was loaded", show=result_text, left=True),
    Column("flags", "FLAGS", width=21, meaning="the flags, by their names in C"),
    Column("library", "LIBRARY", "text", meaning="the name or path that was asked for; [main program] stands for NULL"),
    PROBE,
)


class Options(ToolOptions):
    """Options of `usdtkit dlopens`."""

    min_ms: float = min_ms_option("show calls of MS ms or more")
    failed: bool = option("-x", "--failed", default=False, help="show only calls that returned NULL")


def trace(session: Session, options: Options) -> Rows:
    """Trace calls that load libraries; a row when one returns."""

    def follow(library: str) -> None:
        _follow(session, session.resolve(uprobe(library, "dlopen")), 1, options)
        # musl's C library has no dlmopen.
        _follow(session, session.optional(uprobe(library, "dlmopen")), 2, options)

    first_found(LIBRARIES, follow)
    return Rows(session, COLUMNS, describe)


def _follow(session: Session, function: Resolved, first: int, options: Options) -> None:
    """Send an event for each call. `first` is the number of the argument with the name; the flags come next."""
    calls = session.pair(function, keep={"name": arg(first).cast("u64"), "flags": arg(first + 1).cast("i32")})
    if options.min_ms:
        calls = calls.where(latency >= ms(options.min_ms))
    if options.failed:
        calls = calls.where(retval == 0)
    # The name is read at the return: by then the loader has read it too, so that its page is in memory.
    name = calls.kept("name")
    calls.where(name != 0).emit("flags", "comm", "latency", handle=retval, library=cstr(name))
    calls.where(name == 0).emit("flags", "comm", "latency", handle=retval)


def describe(event: Any) -> dict[str, Any]:
    """A call as a row."""
    return {"library": MAIN_PROGRAM, **event._asdict(), "flags": flags_text(event.flags)}
