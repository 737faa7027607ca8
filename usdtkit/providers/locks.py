"""Mutexes: how long threads wait for them, how long they hold them, and in which order they take them.

    from usdtkit import trace
    from usdtkit.providers import locks
    from usdtkit.trace import arg, ms

    with trace.Session(pid=4711) as session:
        locks.holds(session).where(arg("held") > ms(1)).emit()
        event = next(iter(session))
        print(event.stack.frames[0].name, event.held > 1_000_000)

Input: a session, and the functions of the C library, whose names are below. Output: sources that know the time, the
mutex and the stack, or events that `lockorder` looks for cycles in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usdtkit.providers.alternatives import first_found
from usdtkit.providers.lockorder import Cycle, LockOrder
from usdtkit.trace import Expression, Pair, Session, Source, Sources, arg, comm, now, retval, uprobe, ustack

# Before glibc 2.34 the functions were in a library of their own.
LIBRARIES = ("c", "pthread")
# Each takes a mutex, its first argument, and returns 0 for success. A try does not wait, and the others that are timed
# do not wait for ever.
LOCK, TRY_LOCK = "pthread_mutex_lock", "pthread_mutex_trylock"
TIMED_LOCKS = ("pthread_mutex_timedlock", "pthread_mutex_clocklock")
UNLOCK = "pthread_mutex_unlock"
# Each releases a mutex, its second argument, and takes it again before it returns.
CONDITION_WAITS = ("pthread_cond_wait", "pthread_cond_timedwait", "pthread_cond_clockwait")
# Between calls of these, an address is one and the same mutex.
LIFETIME = ("pthread_mutex_init", "pthread_mutex_destroy")


def waits(session: Session) -> Pair:
    """Calls that wait for a mutex and return when they have it.

    They know `latency`, `mutex` (its address) and `stack`. NotFoundError if no process uses mutexes.
    """

    def calls(library: str) -> Pair:
        pair = session.pair(uprobe(library, LOCK, *TIMED_LOCKS), keep={"mutex": arg(1)})
        return pair.derive("mutex", stack=ustack)

    return first_found(LIBRARIES, calls)


def holds(session: Session) -> Sources[Source]:
    """Unlocks of mutexes, with the time since the lock.

    They know `held` (nanoseconds), `mutex` (its address) and `stack` (of the lock). A recursive mutex is held from its
    first lock to its last unlock. A wait for a condition releases the mutex meanwhile, so it is two holds.
    """
    return first_found(LIBRARIES, lambda library: _holds(session, library))


def _holds(session: Session, library: str) -> Sources[Source]:
    held = session.map(since="u64", depth="u64", stack="stack")
    calls = session.pair(uprobe(library, LOCK, TRY_LOCK, *TIMED_LOCKS), keep={"mutex": arg(1)})
    sleeps = session.pair(session.optional(uprobe(library, *CONDITION_WAITS)), keep={"mutex": arg(2)})
    # A wait for a condition ends with the mutex taken, whether it was woken or its time was over.
    for taken in (calls.where(retval.cast("i32") == 0), sleeps):
        mutex = taken.kept("mutex")
        unchanged = {"since": held.get("since", mutex), "stack": held.get("stack", mutex)}
        # If the mutex is held since this call began, another function that this one called has taken it: the functions
        # of musl call each other.
        again = held.has(mutex) & (held.get("since", mutex) < now - taken.latency)
        taken.where(again).put(held, mutex, depth=held.get("depth", mutex) + 1, **unchanged)
        taken.where(~held.has(mutex)).put(held, mutex, depth=1, since=now, stack=ustack)
    ends = []
    unlocks: list[tuple[Source, Expression]] = [(session.uprobe(library, UNLOCK), arg(1)), (sleeps.start, arg(2))]
    for source, mutex in unlocks:
        since, depth, stack = (held.get(name, mutex) for name in ("since", "depth", "stack"))
        source.where(depth == 1).delete(held, mutex)
        source.where(depth > 1).put(held, mutex, depth=depth - 1, since=since, stack=stack)
        key = {} if "mutex" in source.arguments else {"mutex": mutex}
        ends.append(source.where(depth == 1).ahead().derive("mutex", held=now - since, stack=stack, **key))
    return Sources(*ends)


def orders(session: Session, library: str = "", *, locks: Sequence[str] = (), unlocks: Sequence[str] = ()) -> LockWatch:
    """Send an event for each lock and unlock of a mutex. The result finds cycles in the order of the locks.

    Without `library` the functions are those of the C library. `locks` and `unlocks` are other functions whose first
    argument is the lock, in place of `LOCK` and `UNLOCK`.
    """
    first_found([library] if library else LIBRARIES, lambda name: _order_events(session, name, locks, unlocks))
    return LockWatch()


def _order_events(session: Session, library: str, locks: Sequence[str], unlocks: Sequence[str]) -> None:
    """Events that have the mutex in a field of the name of what the thread does to it."""
    session.uprobe(library, *(locks or (LOCK,))).emit(wanted=arg(1), stack=ustack, comm=comm)
    session.uprobe(library, *(unlocks or (UNLOCK,))).emit(released=arg(1))
    if not locks:
        # A program that is linked statically has only those of these functions that it calls.
        tries = session.pair(session.optional(uprobe(library, TRY_LOCK, *TIMED_LOCKS)), keep={"mutex": arg(1)})
        tries.where(retval.cast("i32") == 0).emit(taken=tries.kept("mutex"), stack=ustack, comm=comm)
        session.source(session.optional(uprobe(library, *LIFETIME))).emit(renewed=arg(1))


class LockWatch:
    """The order in which the events of a session take mutexes. Made by `orders`."""

    def __init__(self) -> None:
        self._order = LockOrder()

    def take(self, event: Any) -> list[Cycle]:
        """The cycles that are new with this event. In an `Edge`, `held_at` and `wanted_at` are events of locks, which
        have `time_ns`, `pid`, `tid`, `comm` and `stack`."""
        thread, (action, address) = (event.pid, event.tid), _action(event)
        mutex = (event.pid, address)
        if action == "released":
            self._order.unlocked(thread, mutex)
        elif action == "renewed":
            self._order.forget(mutex)
        else:
            return self._order.locked(thread, mutex, event, waited=action == "wanted")
        return []


def _action(event: Any) -> tuple[str, int]:
    for name in ("wanted", "released", "taken", "renewed"):
        if name in event._fields:
            return name, getattr(event, name)
    raise ValueError(f"{event!r} is no event of a mutex")
