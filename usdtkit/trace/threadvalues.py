"""Values that a session keeps of each thread: what it does just now, since when, how far it has come.

Input: the action `assign` of `sources`. Output: expressions of what was assigned last, for other actions at hits of the
same thread. They end with the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.errors import UsageError

ThreadKind = Literal["u64", "i64"] | int
"""What a value of a thread can be: a number, or a text of at most so many bytes."""


class ThreadValues:
    """Made by `Session.thread_values`. `get` and `has` are expressions, for actions of any source of the session."""

    def __init__(self, number: int, layout: Layout) -> None:
        self.number = number
        self.layout = layout
        self._initial: Callable[[], Mapping[int, Mapping[str, int | str]]] = dict

    def get(self, name: str) -> ex.Expression:
        """What was assigned last in this thread; where nothing was, 0 or an empty text."""
        field = self.layout.fields[self._index(name)]
        assert field.kind in ("u64", "i64", "str")
        return ex.ThreadValue(self.number, self._index(name), field.kind, field.size)

    def has(self) -> ex.Expression:
        """Whether anything was assigned in this thread, as a condition."""
        return ex.ThreadValue(self.number, 0, "bool")

    def begin_with(self, initial: Callable[[], Mapping[int, Mapping[str, int | str]]]) -> None:
        """What is known of threads that ran before the trace: if anything reads these values, `initial` is called when
        all is attached. It returns values of threads by their number; what it leaves out is 0 or an empty text. A
        thread that was assigned a value since then keeps its own."""
        self._initial = initial

    def initial(self) -> Iterator[tuple[bytes, bytes]]:
        """The entries with which the table begins."""
        for thread, values in self._initial().items():
            yield thread.to_bytes(4, "little"), b"".join(_packed(field, values) for field in self.layout.fields)

    def by_index(self, values: Mapping[str, ex.Operand]) -> dict[int, ex.Expression]:
        """New values by the index of their field. UsageError for one that is unknown."""
        return {self._index(name): ex.lift(value) for name, value in values.items()}

    def _index(self, name: str) -> int:
        names = [field.name for field in self.layout.fields]
        if name not in names:
            raise UsageError(f"there is no value {name!r} of threads", hint=f"there are {', '.join(names)}")
        return names.index(name)


def layout_of(fields: Mapping[str, ThreadKind]) -> Layout:
    """How the values lie in the table. UsageError for a kind that a thread's value cannot have."""
    if not fields:
        raise UsageError("a thread needs at least one value", hint='such as since="u64"')
    described = []
    for name, kind in fields.items():
        if isinstance(kind, int):
            if not 1 <= kind <= ex.MAX_STRING:
                raise UsageError(f"a text of {kind} bytes cannot be kept", hint=f"from 1 to {ex.MAX_STRING}")
            described.append(Field(name, "str", kind))
        elif kind in ("u64", "i64"):
            described.append(Field(name, kind))
        else:
            raise UsageError(
                f"{name!r}, a {kind!r}, cannot be kept of a thread", hint="u64, i64, or the bytes of a text"
            )
    return Layout(described)


def _packed(field: Field, values: Mapping[str, int | str]) -> bytes:
    value = values.get(field.name, "" if field.is_text else 0)
    if isinstance(value, int):
        return (value % 2**64).to_bytes(8, "little")
    # As the program writes it: the length counts the NUL, and one byte more than the size shows that more was cut off.
    text = value.encode(errors="surrogateescape")[: field.size + 1] + b"\0"
    return len(text).to_bytes(4, "little") + text.ljust(field.capacity, b"\0")
