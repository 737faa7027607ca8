"""The names that a user gives to fields and keys → the expressions that fill them.

Input: names, and `name=expression`. Output: names that are Python identifiers, each with its expression, for `sources`
and `summarising`. The fields of events say their units: "latency" becomes `latency_ns`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping, Sequence

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Kind
from usdtkit.errors import UsageError

HEADER = ("time_ns", "pid", "tid", "probe")
"""The fields that every event has."""
UNITS = {"latency": "latency_ns", "time": "time_ns"}
"""The fields whose names get a unit."""
# The members of the struct of an event have 64 bits.
RAW_NUMBERS: dict[str, Kind] = {
    **dict.fromkeys(("u8", "u16", "u32", "u64"), "u64"),
    **dict.fromkeys(("i8", "i16", "i32", "i64"), "i64"),
    **{"bool": "bool", "f64": "f64"},
}


def named(
    names: Sequence[str], fields: Mapping[str, ex.Expression], own_names: Collection[str]
) -> dict[str, ex.Expression]:
    """The expressions of `names` and `fields`, by the names of their fields. UsageError where one cannot be a field.

    `own_names` are names that mean something else at this source than everywhere: its arguments, and what it keeps.
    """
    if not all(isinstance(name, str) for name in names):
        raise UsageError("an expression was given where a name is expected", hint="give it one: name=expression")
    expressions: dict[str, ex.Expression] = {field_name(name, own_names): ex.Name(name) for name in names}
    for name, value in fields.items():
        if name in expressions or not is_free(name):
            raise UsageError(
                f"a field cannot be called {name!r} here", hint="use a Python identifier, and each name once"
            )
        expressions[name] = ex.lift(value)
    return expressions


def field_name(name: str, own_names: Collection[str]) -> str:
    """What the field is called that is asked for by this name."""
    return free_name(name) if name in own_names else UNITS.get(name, name)


def free_name(name: str) -> str:
    """The name of an argument, which its application chose, as the name of a field."""
    if is_free(name) and name not in HEADER and name not in ex.BUILTINS:
        return name
    return f"arg_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"


def is_free(name: str) -> bool:
    """Whether a field can be called so: a Python identifier that is no keyword and does not begin with "_"."""
    return name.isidentifier() and not name.startswith("_") and not keyword.iskeyword(name)


def raw_field(name: str, type: str, string_size: int) -> Field:
    """A field that a user's C fills. UsageError where C or Python does not allow the name, or there is no such type."""
    if not name.isidentifier() or not name.isascii() or name.startswith("_") or name in HEADER:
        raise UsageError(f"a field cannot be called {name!r} here", hint="use a name that C and Python allow")
    if type in ("str", "bytes"):
        return Field(name, "str" if type == "str" else "bytes", string_size)
    if type not in RAW_NUMBERS:
        raise UsageError(
            f"a field {name!r} cannot have the type {type!r}", hint=f"one of {', '.join(RAW_NUMBERS)}, str, bytes"
        )
    return Field(name, RAW_NUMBERS[type])


def as_value(value: ex.Expression | str) -> ex.Expression:
    """A name as the expression that it stands for."""
    return ex.Name(value) if isinstance(value, str) else value


def both(first: ex.Expression | None, second: ex.Expression | None) -> ex.Expression | None:
    """A condition that is true where both are; None is always true."""
    if second is None:
        return first
    second = ex.lift(second)
    return second if first is None else first & second
