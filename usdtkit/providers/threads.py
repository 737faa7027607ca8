"""Creation of threads: a session in, the calls of pthread_create with the function that each thread begins in out.

    from usdtkit import trace
    from usdtkit.providers import threads

    with trace.Session(pid=4711) as session:
        threads.creations(session).emit()
        row = threads.describe(session, next(iter(session)))
        print(row["function"], row["result"])

Sees threads of C, C++ and Rust programs and of the runtimes of other languages; Go makes its threads without the
function. Uses `usdtkit.trace`.
"""

from __future__ import annotations

import errno
from typing import Any

from usdtkit.providers.alternatives import first_found
from usdtkit.trace import Pair, Session, arg, retval, uprobe

# Before glibc 2.34 the function was in a library of its own.
LIBRARIES = ("c", "pthread")


def creations(session: Session) -> Pair:
    """Calls of pthread_create: `start`, the address of the function that the thread begins in; `returned`, 0 or an
    errno; `comm` of the thread that called. `describe` makes rows of their events. NotFoundError.
    """

    def calls(library: str) -> Pair:
        return session.pair(uprobe(library, "pthread_create"), keep={"start": arg(3)})

    creations = first_found(LIBRARIES, calls)
    keep_names(session)
    return creations.derive("start", "comm", returned=retval.cast("i32"))


def keep_names(session: Session) -> None:
    """Read what the session's processes map, so that their functions have names after they have ended too."""
    for pid in session.search_pids:
        session.symbol(pid, 0)


def describe(session: Session, event: Any) -> dict[str, Any]:
    """A creation as a row: `function` names where the thread begins, and `result` is "ok" or the name of an errno.

    If the program has no symbol for the function, its file and the address in it are the name. The bare address is the
    name if the process has ended, unless the session traces it by its pid.
    """
    row: dict[str, Any] = event._asdict()
    row["function"] = session.symbol(event.pid, row.pop("start")).label
    row["result"] = errno.errorcode.get(event.returned, "?") if event.returned else "ok"
    return row
