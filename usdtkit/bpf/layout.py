"""One description of a record → its C struct, and the decoder of its bytes.

It serves events in the ring buffer, what a pair keeps between start and end, and keys and values of aggregations. The
program in the kernel and the reader in Python use the same description, so they cannot disagree. Every field takes a
multiple of 8 bytes, so that there is no padding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from usdtkit.model import Truncated, TruncatedBytes
from usdtkit.records import dataclass

Kind = Literal["u64", "i64", "bool", "f64", "str", "bytes", "stack", "pyframe", "interned", "probe"]
_NUMBERS: dict[str, tuple[str, str]] = {
    "u64": ("u64", "Q"),
    "i64": ("s64", "q"),
    "bool": ("u64", "Q"),
    "f64": ("u64", "d"),
    "stack": ("u64", "Q"),  # its number, by which `usdtkit.trace.stacks` knows it
    "pyframe": ("u64", "Q"),  # the number of a stack, which stands for its innermost Python function
    "interned": ("u64", "Q"),  # its number, by which `usdtkit.trace.internedtexts` knows it
    "probe": ("u64", "Q"),  # its number, which `with_probes` turns into its name
}


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a record: a number, or at most `size` bytes of text or data.

    With the `names` of an enum, a number is decoded as its name; a number without one stays a number. Behind an
    `optional` number stands whether it is there; it is decoded as None if not.
    """

    name: str
    kind: Kind
    size: int = 8
    names: tuple[tuple[str, int], ...] = ()
    optional: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a text or data, which has a length in front."""
        return self.kind in ("str", "bytes")

    @property
    def capacity(self) -> int:
        """Bytes of the value in the struct. A text has one byte more and a NUL, which show whether it was cut."""
        return (self.size + 2 + 4 + 7) // 8 * 8 - 4 if self.is_text else 8


class Layout:
    """A struct of `fields` (f0, f1, … in C) behind `header` fields, which are (name, "u32" or "u64").

    `longest` limits the bytes of every text, for records whose texts are known to fit; it is 4 more than a multiple of
    8.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        header: Sequence[tuple[str, str]] = (),
        longest: int | None = None,
        probes: dict[int, str] | None = None,
    ) -> None:
        self.fields = tuple(fields)
        self.probes = probes
        self.longest = longest
        self.header = tuple(header)
        self.capacities = tuple(min(field.capacity, longest or field.capacity) for field in fields)
        codes = ["I" if type == "u32" else "Q" for _, type in header]
        # Where the length and data of a text are in the unpacked tuple, or a number and whether it is there.
        self._doubles: list[tuple[int, Field]] = []
        self._booleans: list[int] = []
        self._named: list[tuple[int, Mapping[int, str]]] = []
        for field, capacity in zip(fields, self.capacities, strict=True):
            position = len(codes)
            if field.is_text:
                self._doubles.append((position, field))
                codes += ["i", f"{capacity}s"]
            else:
                if field.kind == "bool":
                    self._booleans.append(position)
                if field.kind == "probe" and probes is not None:
                    self._named.append((position, probes))
                elif field.names:
                    self._named.append((position, {number: name for name, number in reversed(field.names)}))
                codes.append(_NUMBERS[field.kind][1])
                if field.optional:
                    self._doubles.append((position, field))
                    codes.append("Q")
        self._struct = struct.Struct("<" + "".join(codes))

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return self._struct.size

    @property
    def offsets(self) -> tuple[int, ...]:
        """The offset of each field in a record; a text begins with its length."""
        header = sum(4 if type == "u32" else 8 for _, type in self.header)
        sizes = [
            4 + capacity if field.is_text else 16 if field.optional else 8
            for field, capacity in zip(self.fields, self.capacities, strict=True)
        ]
        return tuple(header + sum(sizes[:index]) for index in range(len(sizes)))

    def c_struct(self, name: str, *, named: bool = False) -> str:
        """The C declaration of `struct name`. With `named`, its members have the names of the fields."""
        members = [f"{type} {member};" for member, type in self.header]
        for index, (field, capacity) in enumerate(zip(self.fields, self.capacities, strict=True)):
            member = field.name if named else f"f{index}"
            if field.is_text:
                members += [f"s32 {member}_length;", f"char {member}[{capacity}];"]
            else:
                members.append(f"{_NUMBERS[field.kind][0]} {member};")
                if field.optional:
                    members.append(f"u64 {member}_present;")
        return f"struct {name} {{ {' '.join(members)} }};"

    def with_probes(self, probes: dict[int, str]) -> Layout:
        """The same layout, whose numbers of probes are decoded as their names; more may be added to `probes` later."""
        if not any(field.kind == "probe" for field in self.fields):
            return self
        return Layout(self.fields, self.header, self.longest, probes)

    def with_known(self, kind: Kind, known: Callable[[int], Any]) -> Layout:
        """The same layout, in which `known` gives what the numbers of this kind of fields stand for."""
        return _Known(self, kind, known) if any(field.kind == kind for field in self.fields) else self

    def decode(self, payload: bytes | memoryview) -> tuple[Any, ...]:
        """The values of the header and of the fields, in order. A text that could not be read is None."""
        values = self._struct.unpack_from(payload)
        if not self._doubles and not self._booleans and not self._named:
            return values
        changed = list(values)
        for position in self._booleans:
            changed[position] = bool(changed[position])
        for position, names in self._named:
            changed[position] = names.get(changed[position], changed[position])
        # From the end, because two values become one at each of these.
        for position, field in reversed(self._doubles):
            one, other = changed[position : position + 2]
            value = _text(field, one, other) if field.is_text else one if other else None
            changed[position : position + 2] = [value]
        return tuple(changed)


class _Known(Layout):
    def __init__(self, layout: Layout, kind: Kind, known: Callable[[int], Any]) -> None:
        super().__init__(layout.fields, layout.header, layout.longest, layout.probes)
        self._whole, self._known = layout, known
        self._at = [len(layout.header) + n for n, field in enumerate(layout.fields) if field.kind == kind]

    def decode(self, payload: bytes | memoryview) -> tuple[Any, ...]:
        values = list(self._whole.decode(payload))
        for at in self._at:
            values[at] = self._known(values[at])
        return tuple(values)


def _text(field: Field, length: int, data: bytes) -> str | bytes | None:
    if length < 0:  # an errno: there is no memory at that address
        return None
    if field.kind == "bytes":
        content = data[: min(length, field.size)]
        return TruncatedBytes(content) if length > field.size else content
    content = data[:length].partition(b"\0")[0]
    if len(content) > field.size:
        return Truncated(content[: field.size].decode(errors="surrogateescape"))
    return content.decode(errors="surrogateescape")
