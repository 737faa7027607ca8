"""The types of C that our programs have: integers, pointers, arrays and structures, with their sizes and members.

Made by `parser` from declarations, and asked by `lowering` for what an expression means.
"""

from __future__ import annotations

from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.records import dataclass, field


class Type:
    """Any type; `size` and `alignment` are in bytes."""

    @property
    def size(self) -> int:
        """What `sizeof` gives."""
        raise UntranslatableError("the size of a type that has none")

    @property
    def alignment(self) -> int:
        """At multiples of which it lies in a structure."""
        return self.size


@dataclass(frozen=True)
class Void(Type):
    """No value; `void *` counts in bytes."""

    @property
    def size(self) -> int:
        """1, as for pointers to it."""
        return 1


@dataclass(frozen=True)
class Integer(Type):
    """An integer of `width` bytes. In a register it is extended to 64 bits, by its sign where it has one."""

    width: int
    signed: bool

    @property
    def size(self) -> int:
        """Its width."""
        return self.width

    def wrap(self, value: int) -> int:
        """The value that is left of a larger one."""
        bits = 8 * self.width
        value &= (1 << bits) - 1
        return value - (1 << bits) if self.signed and value >> (bits - 1) else value


@dataclass(frozen=True)
class Pointer(Type):
    """The address of something."""

    to: Type

    @property
    def size(self) -> int:
        """8, on every architecture on which BPF runs."""
        return 8


@dataclass(frozen=True)
class Array(Type):
    """`count` values in a row."""

    of: Type
    count: int

    @property
    def size(self) -> int:
        """That of all of them."""
        return self.of.size * self.count

    @property
    def alignment(self) -> int:
        """That of one of them."""
        return self.of.alignment


@dataclass(eq=False)
class Struct(Type):
    """A structure or a union: the offset and the type of each member, by name."""

    name: str
    members: dict[str, tuple[int, Type]] = field(default_factory=dict)
    length: int = 0
    strictest: int = 1

    @property
    def size(self) -> int:
        """With what is left empty at its end."""
        return (self.length + self.strictest - 1) // self.strictest * self.strictest

    @property
    def alignment(self) -> int:
        """That of the member with the strictest one."""
        return self.strictest

    def member(self, name: str) -> tuple[int, Type]:
        """The offset and the type of a member."""
        try:
            return self.members[name]
        except KeyError:
            raise UntranslatableError(f"struct {self.name} has no member {name}") from None

    def add(self, name: str, type: Type, *, is_union: bool) -> None:
        """One more member. A structure without a name gives its members to this one."""
        aligned = (self.length + type.alignment - 1) // type.alignment * type.alignment
        at = 0 if is_union else aligned
        if name:
            self.members[name] = (at, type)
        elif isinstance(type, Struct):
            for inner, (offset, of) in type.members.items():
                self.members[inner] = (at + offset, of)
        self.length = max(self.length, at + type.size)
        self.strictest = max(self.strictest, type.alignment)


VOID = Void()
U8, U16, U32, U64 = (Integer(width, False) for width in (1, 2, 4, 8))
S8, S16, INT, S64 = (Integer(width, True) for width in (1, 2, 4, 8))

NAMED: dict[str, Type] = {
    "void": VOID,
    **{"u8": U8, "u16": U16, "u32": U32, "u64": U64, "s8": S8, "s16": S16, "s32": INT, "s64": S64},
    **{"__u8": U8, "__u16": U16, "__u32": U32, "__u64": U64, "__s8": S8, "__s16": S16, "__s32": INT, "__s64": S64},
    **{"char": S8, "short": S16, "int": INT, "long": S64},
}
"""Types by the names that headers/include/linux/types.h and C give them."""


def promoted(type: Type) -> Integer:
    """What arithmetic makes of one integer or pointer."""
    if isinstance(type, Pointer):
        return U64
    if not isinstance(type, Integer):
        raise UntranslatableError("arithmetic with something that is no integer")
    return INT if type.width < INT.width else type


def common(left: Type, right: Type) -> Integer:
    """The type in which two integers, or pointers, are calculated with and compared."""
    a, b = promoted(left), promoted(right)
    if a.width != b.width:
        return a if a.width > b.width else b
    return b if a.signed else a
