"""The types that arguments of probes and functions can have, and the operands that each takes.

This table is the only place that lists them. `usdtkit.probes` checks declarations against it and writes the operands
into provider files, `usdtkit.elf.notes` reads the types back from such a file, and `usdtkit.model` counts operands
with it. native/probe_values.c converts Python values by the same list in the same order. Imports nothing of ours.
"""

from __future__ import annotations

_PLAIN: dict[str, tuple[int, ...]] = {
    "u8": (1,),
    "u16": (2,),
    "u32": (4,),
    "u64": (8,),
    "i8": (-1,),
    "i16": (-2,),
    "i32": (-4,),
    "i64": (-8,),
    "bool": (1,),
    "f32": (4,),
    "f64": (8,),
    "str": (8,),
    "bytes": (8, 8),
    "enum": (-4,),
    "json": (8,),
}
# A pointer is NULL where the value is None. A number has one more operand, 1 if it is there, and 0 if it is None.
_OPTIONAL = {
    f"{name}?": sizes if name in ("str", "bytes") else (*sizes, 1) for name, sizes in _PLAIN.items() if name != "json"
}

DECLARABLE = {**_PLAIN, **_OPTIONAL}
"""The types that a probe can be declared with. Each has the sizes of its operands in bytes, negative where signed.

f32 and f64 travel as their IEEE bits, an enum as its number, bytes as a pointer and a length, str and json as a pointer
to text that ends with a NUL. One that ends with "?" may be None; a json always may. native/probe_values.c numbers the
types in this order.
"""

OPERANDS: dict[str, tuple[int, ...]] = {**DECLARABLE, "pointer": (8,), "text": (8, 8)}
"""All types with the sizes of their operands. Those that cannot be declared describe other software: `pointer` is an
address that is not followed, `text` a string as a pointer and a length."""


def width_of(type: str) -> int:
    """Return how many operands an argument of this type takes; an unknown type takes one."""
    return len(OPERANDS.get(type, (8,)))
