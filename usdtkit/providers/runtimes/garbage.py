"""Events of garbage collectors → collections, with how long each took and what it did.

Input: the events of `Runtime.collections`: of the probes at the beginning and the end of collections, or of the
function that collects. Output: a `GarbageCollection` when one has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from usdtkit.model import Truncated
from usdtkit.providers.runtimes.language import CollectionProbes
from usdtkit.records import dataclass

# What every event has, whatever its probe says.
_HEADER = ("time_ns", "pid", "tid", "probe", "latency_ns")

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GarbageCollection:
    """One collection: it began at `time_ns` and took `latency_ns`.

    `kind` is what the language calls it, and `key` are the values that identify it among others of its kind, such as
    the name of a memory pool. `start` and `end` have the arguments of the probes.
    """

    time_ns: int
    pid: int
    tid: int
    latency_ns: int
    kind: str
    key: Mapping[str, Any]
    start: Fields
    end: Fields

    @property
    def description(self) -> str:
        """The collection in one line, such as `pool G1 Eden Space used=4194304->0`: its key, and the other values of
        both probes. Unchanged values are left out, except `used`."""
        words = [self.kind, *map(_text, self.key.values())]
        for name in [*self.start, *(name for name in self.end if name not in self.start)]:
            in_both = name in self.start and name in self.end
            is_unchanged = name in self.start and self.start[name] == self.end.get(name)
            if name in self.key or (is_unchanged and name != "used"):
                continue
            value = self.start[name] if name in self.start else self.end[name]
            words.append(f"{name}={_text(value)}" + (f"->{_text(self.end[name])}" if in_both else ""))
        return " ".join(words)


class GarbageCollections:
    """Matches the events of a session that begin collections with those that end them.

    The innermost collection that is open in a thread ends first, except that pools are told apart by their names.
    """

    def __init__(self, kinds: Sequence[CollectionProbes], min_ns: int = 0) -> None:
        """`kinds` are those of the language. Collections shorter than `min_ns` are left out."""
        self._starts = {kind.start: kind for kind in kinds if kind.done}
        self._ends = {kind.done: kind for kind in kinds if kind.done}
        self._functions = [kind for kind in kinds if not kind.done]
        self._open: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        self._min_ns = min_ns

    def take(self, event: Any) -> GarbageCollection | None:
        """The collection that ends with this event. None if one begins, or had begun before the trace."""
        collection = self._of_function(event) if "latency_ns" in event._fields else self._of_probe(event)
        return None if collection is None or collection.latency_ns < self._min_ns else collection

    def _of_function(self, event: Any) -> GarbageCollection:
        """A collection that is the call of a function; numbers become words, unless they are newer than our tables."""
        (kind,) = self._functions
        start = {}
        for name, _, words in kind.numbers:
            number = getattr(event, name)
            start[name] = words[number] if number < len(words) else str(number)
        return _collection(kind, event, event.latency_ns, start, {})

    def _of_probe(self, event: Any) -> GarbageCollection | None:
        kind = self._starts.get(event.probe) or self._ends[event.probe]
        values = (getattr(event, name) for name in kind.key)
        still_open = self._open[(event.pid, event.tid, kind.start, *values)]
        if event.probe in self._starts:
            still_open.append(event)
            return None
        if not still_open:
            return None
        start = still_open.pop()
        return _collection(kind, event, event.time_ns - start.time_ns, _arguments(start), _arguments(event))


def _collection(kind: CollectionProbes, event: Any, took_ns: int, start: Fields, end: Fields) -> GarbageCollection:
    key = {name: start[name] for name in kind.key}
    began_ns = event.time_ns - took_ns
    return GarbageCollection(began_ns, event.pid, event.tid, took_ns, kind.what, key, start, end)


def _arguments(event: Any) -> Fields:
    """What a probe says, without what every event has."""
    return {name: value for name, value in event._asdict().items() if name not in _HEADER}


def _text(value: Any) -> str:
    """An argument as text, with "…" if only its beginning was read, and "?" if it could not be read."""
    if value is None:
        return "?"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}…" if isinstance(value, Truncated) else str(value)
