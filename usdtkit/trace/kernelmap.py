"""A map in the kernel that sources keep: what is allocated, locked, open, by a number that tells which one it is.

Input: the actions `put` and `delete` of `sources`. Output: expressions of what an entry holds, for other actions, and
all entries, read in batches. Keys belong to a process: the same address in two processes is two entries.
"""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.render import store_name
from usdtkit.errors import UsageError
from usdtkit.kernel.maps import Map

Kind = Literal["u64", "i64", "stack"]
_KINDS = ("u64", "i64", "stack")
USUAL_ROOM, MOST_ROOM = 10_240, 1 << 24  # entries, which the kernel allocates in advance
_KEY = Layout([Field("pid", "u64"), Field("key", "u64")])


class KernelMap:
    """Made by `Session.map`. `get` and `has` are expressions, for actions of any source of the session; `entries` reads
    what is there now, as long as the session is open."""

    def __init__(self, number: int, room: int, fields: Mapping[str, Kind]) -> None:
        if not 1 <= room <= MOST_ROOM:
            raise UsageError(f"a map of {room} entries", hint=f"from 1 to {MOST_ROOM}")
        if not fields:
            raise UsageError("a map without fields", hint='such as since="u64"')
        for name, kind in fields.items():
            if name in ("pid", "key") or name.startswith("_") or keyword.iskeyword(name):
                raise UsageError(f"a field of a map cannot be called {name!r}")
            if kind not in _KINDS:
                raise UsageError(f"a map cannot hold {name!r}, a {kind!r}", hint=f"one of {', '.join(_KINDS)}")
        self.number, self.room = number, room
        self.layout = Layout([Field(name, kind) for name, kind in fields.items()])
        self._row = namedtuple("Entry", ("pid", "key", *fields))  # type: ignore[misc]  # named by whoever made it
        self._map: Map | None = None
        self._values = self.layout

    @property
    def name(self) -> str:
        """What the program calls it."""
        return store_name(self.number)

    def get(self, field: str, key: ex.Expression) -> ex.Expression:
        """What the entry of `key` holds in this field: 0, or no stack, where there is no such entry."""
        names = [one.name for one in self.layout.fields]
        if field not in names:
            raise UsageError(f"this map holds no {field!r}", hint=f"it holds {', '.join(names)}")
        one = self.layout.fields[names.index(field)]
        return ex.MapValue(self.number, names.index(field), one.kind, key)  # type: ignore[arg-type]  # checked above

    def has(self, key: ex.Expression) -> ex.Expression:
        """Whether there is an entry of `key`, as a condition."""
        return ex.MapValue(self.number, 0, "bool", key)

    def entries(self) -> Iterator[Any]:
        """All entries now: `pid`, `key`, and the fields. None before the start."""
        if self._map is not None:
            for key, value in self._map.items():
                yield self._row(*_KEY.decode(key), *self._values.decode(value))

    def in_order(self, values: Mapping[str, ex.Operand]) -> tuple[ex.Expression, ...]:
        """For `Source.put`: the values as the fields stand; UsageError where one is missing or unknown."""
        names = [one.name for one in self.layout.fields]
        if set(values) != set(names):
            raise UsageError(
                f"a map of {', '.join(names)} was given {', '.join(values) or 'none'}",
                hint="every field needs a value",
            )
        return tuple(ex.lift(values[name]) for name in names)

    def bind(self, map: Map, values: Layout) -> None:
        """Called by the session when the map exists."""
        self._map, self._values = map, values
