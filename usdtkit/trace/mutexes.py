"""How long threads wait for mutexes, and hold them.

Input: a session, and what `providers.libc` knows of the functions. Output: sources with the time, the mutex and the
stack as expressions, given to a caller who summarises or sends them.
"""

from __future__ import annotations

from collections.abc import Callable

from usdtkit.bpf.expressions import Expression, arg, now, retval, ustack
from usdtkit.signatures import libc
from usdtkit.trace.session import Session
from usdtkit.trace.sources import Source
from usdtkit.trace.specs import uprobe

Measure = Callable[[Source, Expression, Expression, Expression], None]
"""Takes a source, and of its hits the time in nanoseconds, the address of the mutex, and the stack."""


def waits(session: Session, library: str, measure: Measure) -> None:
    """Calls that take a mutex, and return when they have it."""
    calls = session.pair(uprobe(library, libc.MUTEX_LOCK, *libc.MUTEX_TIMED), keep={"mutex": arg(1)})
    measure(calls, calls.latency, calls.kept("mutex"), ustack)


def holds(session: Session, library: str, measure: Measure) -> None:
    """From the return of what takes a mutex to what lets go of it."""
    held = session.map(since="u64", depth="u64", stack="stack")
    locks = (libc.MUTEX_LOCK, libc.MUTEX_TRY, *libc.MUTEX_TIMED)
    calls = session.pair(uprobe(library, *locks), keep={"mutex": arg(1)})
    sleeps = session.pair(session.optional(uprobe(library, *libc.CONDITION_WAITS)), keep={"mutex": arg(2)})
    # Whether its time came or not, a sleep ends with the mutex.
    for taken in (calls.where(retval.cast("i32") == 0), sleeps):
        mutex = taken.kept("mutex")
        deeper = {"since": held.get("since", mutex), "stack": held.get("stack", mutex)}
        # Held since this call began: another that it made has taken the mutex, as musl's functions call each other.
        again = held.has(mutex) & (held.get("since", mutex) < now - taken.latency)
        taken.where(again).put(held, mutex, depth=held.get("depth", mutex) + 1, **deeper)
        taken.where(~held.has(mutex)).put(held, mutex, depth=1, since=now, stack=ustack)
    for source, mutex in ((session.uprobe(library, libc.MUTEX_UNLOCK), arg(1)), (sleeps.start, arg(2))):
        since, depth, stack = (held.get(name, mutex) for name in ("since", "depth", "stack"))
        measure(source.where(depth == 1), now - since, mutex, stack)
        source.where(depth == 1).delete(held, mutex)
        source.where(depth > 1).put(held, mutex, depth=depth - 1, since=since, stack=stack)
