"""A map in the kernel that sources keep: what is allocated, locked or open, by a number such as an address.

Input: the actions `put` and `delete` of `sources`. Output: expressions of what an entry holds, for other actions, and
all entries, read in batches. Keys belong to a process: the same address in two processes is two entries.
"""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.render import store_name
from usdtkit.errors import UsageError

if TYPE_CHECKING:
    from usdtkit.kernel.maps import Map

Kind = Literal["u64", "i64", "stack"]
_KINDS = ("u64", "i64", "stack")
USUAL_CAPACITY, MAX_CAPACITY = 10_240, 1 << 24  # entries, which the kernel allocates in advance
_KEY = Layout([Field("pid", "u64"), Field("key", "u64")])


class Store:
    """The map of one `KernelMap` as the program has it: its number, its capacity and the layout of its values.

    `map` and `values`, which say how to read it, are set when the map exists.
    """

    def __init__(self, number: int, capacity: int, fields: Mapping[str, Kind]) -> None:
        if not 1 <= capacity <= MAX_CAPACITY:
            raise UsageError(f"a map cannot have {capacity} entries", hint=f"from 1 to {MAX_CAPACITY}")
        if not fields:
            raise UsageError("a map needs at least one field", hint='such as since="u64"')
        for name, kind in fields.items():
            if name in ("pid", "key") or name.startswith("_") or keyword.iskeyword(name):
                raise UsageError(f"a field of a map cannot be called {name!r}")
            if kind not in _KINDS:
                raise UsageError(f"a map cannot hold {name!r}, a {kind!r}", hint=f"one of {', '.join(_KINDS)}")
        self.number, self.capacity = number, capacity
        self.name = store_name(number)
        self.layout = self.values = Layout([Field(name, kind) for name, kind in fields.items()])
        self.map: Map | None = None

    def in_order(self, values: Mapping[str, ex.Operand]) -> tuple[ex.Expression, ...]:
        """The values in the order of the fields. UsageError where one is missing or unknown."""
        names = [field.name for field in self.layout.fields]
        if set(values) != set(names):
            raise UsageError(
                f"a map of {', '.join(names)} was given {', '.join(values) or 'none'}",
                hint="every field needs a value",
            )
        return tuple(ex.lift(values[name]) for name in names)


class KernelMap:
    """Made by `Session.map`. `get` and `has` are expressions, for actions of any source of the session; `entries` reads
    what is there now, as long as the session is open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        names = [field.name for field in store.layout.fields]
        self._row = namedtuple("Entry", ("pid", "key", *names))  # type: ignore[misc]  # named by whoever made it

    def get(self, field: str, key: ex.Expression) -> ex.Expression:
        """What the entry of `key` holds in this field: 0, or no stack, where there is no such entry."""
        fields = self._store.layout.fields
        names = [stored.name for stored in fields]
        if field not in names:
            raise UsageError(f"this map has no field {field!r}", hint=f"its fields are {', '.join(names)}")
        index = names.index(field)
        return ex.MapValue(self._store.number, index, fields[index].kind, key)  # type: ignore[arg-type]  # checked above

    def has(self, key: ex.Expression) -> ex.Expression:
        """Whether there is an entry of `key`, as a condition."""
        return ex.MapValue(self._store.number, 0, "bool", key)

    def entries(self) -> Iterator[Any]:
        """All entries now: `pid`, `key`, and the fields. None before the start."""
        if self._store.map is not None:
            for key, value in self._store.map.items():
                yield self._row(*_KEY.decode(key), *self._store.values.decode(value))
