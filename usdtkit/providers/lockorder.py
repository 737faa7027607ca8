"""Locks and unlocks of threads → the order in which mutexes are taken, and the cycles in it: potential deadlocks.

Input: what each thread did to a mutex, in the order in which it did it, with something that says where. Output:
`Cycle`s. If two threads take two mutexes in opposite order, this finds it even if they did not meet in this run. The
module knows neither the kernel nor a session; `locks` feeds it with events.
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
    """The first time that a thread wanted the mutex `wanted` while it held the mutex `held`.

    `held_at` and `wanted_at` are what `LockOrder.locked` was given for each of them.
    """

    held: Mutex
    wanted: Mutex
    held_at: Any
    wanted_at: Any


Cycle = tuple[Edge, ...]
"""Each edge's `wanted` is the next one's `held`, and the last one's the first one's."""


class LockOrder:
    """The order in which mutexes are taken: an edge from each held mutex to a mutex that is wanted meanwhile.

    A cycle whose edges were all seen under one more mutex is no deadlock, because that mutex keeps the threads apart.
    """

    def __init__(self) -> None:
        self.mismatched = 0
        self._held: dict[Thread, list[tuple[Mutex, Any]]] = {}
        self._edges: dict[Mutex, dict[Mutex, Edge]] = {}
        # The mutexes that were held besides, every time that an edge was seen.
        self._guards: dict[tuple[Mutex, Mutex], frozenset[Mutex]] = {}
        self._reported: set[frozenset[Mutex]] = set()

    def locked(self, thread: Thread, mutex: Mutex, at: Any, *, waited: bool = True) -> list[Cycle]:
        """Note that a thread wants a mutex, and return the cycles that are new; each set of mutexes makes one.

        If `waited` is false, the thread has the mutex already, because it only tried to take it. A mutex that the
        thread holds already makes no edge.
        """
        held = self._held.setdefault(thread, [])
        before = {} if not waited or any(mutex == other for other, _ in held) else dict(held)
        held.append((mutex, at))
        changed = []
        for other, other_at in before.items():
            if self._is_news(other, mutex, frozenset(before) - {other}):
                self._edges.setdefault(other, {})[mutex] = Edge(other, mutex, other_at, at)
                changed.append(other)
        return [cycle for other in changed if (cycle := self._cycle(other, mutex)) is not None]

    def unlocked(self, thread: Thread, mutex: Mutex) -> None:
        """Note that a thread has released a mutex that it holds; of several locks, the last one.

        A mutex that was taken before the trace is counted in `mismatched`.
        """
        held = self._held.get(thread, [])
        for index in range(len(held) - 1, -1, -1):
            if held[index][0] == mutex:
                del held[index]
                if not held:
                    del self._held[thread]
                return
        self.mismatched += 1

    def forget(self, mutex: Mutex) -> None:
        """Note that a mutex is created or destroyed, so edges that were seen at its address belong to another one."""
        for wanted in self._edges.pop(mutex, {}):
            del self._guards[mutex, wanted]
        for held, edges in self._edges.items():
            if edges.pop(mutex, None) is not None:
                del self._guards[held, mutex]

    def edges(self) -> Iterator[Edge]:
        """All edges that were seen so far."""
        for edges in self._edges.values():
            yield from edges.values()

    def _is_news(self, held: Mutex, wanted: Mutex, guards: frozenset[Mutex]) -> bool:
        """Note which other mutexes were held, and return whether the edge was never seen with so few."""
        before = self._guards.get((held, wanted))
        now = guards if before is None else before & guards
        self._guards[held, wanted] = now
        return before != now

    def _cycle(self, held: Mutex, wanted: Mutex) -> Cycle | None:
        """The edge from `held` to `wanted`, with the shortest way back behind it; None if there is no way back."""
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
        if common or mutexes in self._reported:
            return None
        self._reported.add(mutexes)
        return cycle
