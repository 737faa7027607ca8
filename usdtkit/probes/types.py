"""Names of the types of arguments, for the annotations of functions that declare probes.

Type checkers read them as int, float or object. `signature` reads the annotations; the types themselves are listed in
`usdtkit.argumenttypes`. Here too are the types of the values that `provider` takes, so that checkers find a wrong one.
"""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Annotated, Literal, Union

from usdtkit.probes.declaration import ArgumentSpec

TypeName = Literal[
    "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "bool", "f32", "f64", "str", "bytes", "json",
    "u8?", "u16?", "u32?", "u64?", "i8?", "i16?", "i32?", "i64?", "bool?", "f32?", "f64?", "str?", "bytes?",
]  # fmt: skip
ArgumentType = Union[TypeName, ArgumentSpec, type[Enum], UnionType]  # noqa: UP007 to be evaluated by CPython 3.10 too
"""What an argument can be declared with: the name of a type, an `enum.Enum` or that and None, or what `argument`
returns."""
Nop = Literal["safe", "fast"]
OnError = Literal["raise", "drop"]
Stability = Literal["", "private", "unstable", "evolving", "stable"]

u8 = Annotated[int, "u8"]
"""An argument that is an integer of 8 bits without a sign."""
u16 = Annotated[int, "u16"]
"""An argument that is an integer of 16 bits without a sign."""
u32 = Annotated[int, "u32"]
"""An argument that is an integer of 32 bits without a sign."""
u64 = Annotated[int, "u64"]
"""An argument that is an integer of 64 bits without a sign."""
i8 = Annotated[int, "i8"]
"""An argument that is an integer of 8 bits with a sign."""
i16 = Annotated[int, "i16"]
"""An argument that is an integer of 16 bits with a sign."""
i32 = Annotated[int, "i32"]
"""An argument that is an integer of 32 bits with a sign."""
i64 = Annotated[int, "i64"]
"""An argument that is an integer of 64 bits with a sign."""
f32 = Annotated[float, "f32"]
"""An argument that is a floating-point number of 32 bits. Tracers get its bits, as IEEE 754 has them."""
f64 = Annotated[float, "f64"]
"""An argument that is a floating-point number of 64 bits. Tracers get its bits, as IEEE 754 has them."""
json = Annotated[object, "json"]
"""An argument that is any object, which tracers get as a string of JSON."""
