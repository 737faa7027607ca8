"""Locks and unlocks of threads → the order in which mutexes are taken, and the circles in it: potential deadlocks.

Input: what a thread did to a mutex, in the order in which it did it, and the stack of it. Output: `Cycle`s. Two threads
that take two mutexes in opposite order need not meet in a run for this to find them. No kernel, no session: `tools`
feed it from events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from usdtkit.records import dataclass

Mutex = tuple[int, int]
"""Process and address."""
Thread = tuple[int, int]
"""Process and thread."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The first time that a thread wanted `wanted` while it held `held`, with what its events say of both."""

    held: Mutex
    wanted: Mutex
    held_at: Any
    wanted_at: Any


Cycle = tuple[Edge, ...]
"""Each edge's `wanted` is the next one's `held`, and the last one's the first one's."""


class LockOrder:
    """Which mutex is taken while which is held.

    A circle is none where all of its edges were seen under one other mutex only: that keeps the threads apart.
    """

    def __init__(self) -> None:
        self.mismatched = 0
        self._held: dict[Thread, list[tuple[Mutex, Any]]] = {}
        self._edges: dict[Mutex, dict[Mutex, Edge]] = {}
        # Of each edge, the mutexes that were held besides whenever it was seen.
        self._guards: dict[tuple[Mutex, Mutex], frozenset[Mutex]] = {}
        self._told: set[frozenset[Mutex]] = set()

    def locked(self, thread: Thread, mutex: Mutex, at: Any, *, waited: bool = True) -> list[Cycle]:
        """The thread wants the mutex (with `waited` unset it has it already, by a try), and what follows from that:
        new circles, each set of mutexes once. A mutex that the thread holds already is counted, and not ordered."""
        held = self._held.setdefault(thread, [])
        before = {} if not waited or any(mutex == other for other, _ in held) else dict(held)
        held.append((mutex, at))
        found = []
        for other, other_at in before.items():
            if self._saw(other, mutex, frozenset(before) - {other}) is False:
                self._edges.setdefault(other, {})[mutex] = Edge(other, mutex, other_at, at)
                found.append(other)
        return [cycle for other in found if (cycle := self._cycle(other, mutex)) is not None]

    def unlocked(self, thread: Thread, mutex: Mutex) -> None:
        """The thread has let go of the mutex, the last time it took it. One taken before the trace is `mismatched`."""
        held = self._held.get(thread, [])
        for index in range(len(held) - 1, -1, -1):
            if held[index][0] == mutex:
                del held[index]
                if not held:
                    del self._held[thread]
                return
        self.mismatched += 1

    def forget(self, mutex: Mutex) -> None:
        """The mutex begins or ends its life: what was seen of its address was another one."""
        for wanted in self._edges.pop(mutex, {}):
            del self._guards[mutex, wanted]
        for held, edges in self._edges.items():
            if edges.pop(mutex, None) is not None:
                del self._guards[held, mutex]

    def edges(self) -> Iterator[Edge]:
        """All that was seen so far."""
        for edges in self._edges.values():
            yield from edges.values()

    def _saw(self, held: Mutex, wanted: Mutex, guards: frozenset[Mutex]) -> bool:
        """Note what was held besides; whether the edge says nothing new."""
        before = self._guards.get((held, wanted))
        now = guards if before is None else before & guards
        self._guards[held, wanted] = now
        return before == now

    def _cycle(self, held: Mutex, wanted: Mutex) -> Cycle | None:
        """The shortest way back from `wanted` to `held`, behind the edge between them."""
        came_by: dict[Mutex, Edge] = {}
        waiting = deque([wanted])
        while waiting and held not in came_by:
            for edge in self._edges.get(waiting.popleft(), {}).values():
                if edge.wanted not in came_by:
                    came_by[edge.wanted] = edge
                    waiting.append(edge.wanted)
        if held not in came_by:
            return None
        way = [came_by[held]]
        while way[-1].held != wanted:
            way.append(came_by[way[-1].held])
        cycle = (self._edges[held][wanted], *reversed(way))
        common = frozenset.intersection(*(self._guards[edge.held, edge.wanted] for edge in cycle))
        mutexes = frozenset(edge.held for edge in cycle)
        if common or mutexes in self._told:
            return None
        self._told.add(mutexes)
        return cycle
