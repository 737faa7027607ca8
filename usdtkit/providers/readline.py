"""GNU readline: a session in, the lines that people enter in bash, or in programs that use the library, out.

    from usdtkit import trace
    from usdtkit.providers import readline

    with trace.Session(pid=4711) as session:
        readline.lines(session).emit("command")
        print(next(iter(session)).command)

Uses `usdtkit.trace`, and `usdtkit.targets` to find out which form of readline a process has.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit import targets
from usdtkit.errors import NotFoundError
from usdtkit.trace import Resolved, Session, Source, Sources, comm, cstr, retval, uretprobe

LINE_SIZE = 1024
# bash has a copy of the library in itself. This function returns the line, or NULL at the end of the input.
READLINE = "readline"
# Programs with the library's callback interface never call `readline`. In the library (since 4.2) both interfaces end
# in this function, which returns the line too. In bash it may be inlined.
TEARDOWN = "readline_internal_teardown"


def lines(session: Session, library: str | None = None) -> Sources[Source]:
    """The lines that people enter: `command`, up to LINE_SIZE bytes of it, and `comm`.

    Without `library`, these are the lines of bash. If the session was given processes, they are the lines of these,
    whether a process contains readline or uses the library. `library` is a name or a path of libreadline; with it, they
    are the lines of all programs that use this file. NotFoundError is raised if there is no readline.
    """
    return Sources(*(_entered(source) for source in _returns(session, library)))


def _returns(session: Session, library: str | None) -> list[Source]:
    if library is not None:
        return [session.uretprobe(library, TEARDOWN)]
    if session.search_pids:
        return [session.source(places) for places in _in_processes(session.search_pids)]
    try:
        return [session.uretprobe("bash", READLINE)]
    except NotFoundError:  # this bash was built to use the library, which other programs use as well
        return [session.uretprobe("readline", TEARDOWN).where(comm == "bash")]


def _entered(source: Source) -> Source:
    return source.where(retval != 0).derive("comm", command=cstr(retval, LINE_SIZE))


def _in_processes(pids: Sequence[int]) -> list[Resolved]:
    """The returns of the function that returns a line, in each file that the processes map and that has it."""
    places = []
    for functions in targets.defining((READLINE, TEARDOWN), pids=pids):
        path = functions[0].path
        name = TEARDOWN if "libreadline" in path else READLINE
        if chosen := [function for function in functions if function.name == name]:
            places.append(uretprobe(path, name).of(chosen))
    if not places:
        raise NotFoundError("these processes contain no readline", hint="usdtkit list -p PID shows what they map")
    return places
