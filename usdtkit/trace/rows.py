"""Events as a user's own class: a dataclass, a NamedTuple, or a class of attrs.

Input: the class that `emit(into=…)` names, and the fields that a source knows. Output: a `RowType`, which says the
fields of the event, checks their types, and makes the user's objects of decoded events.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field
from usdtkit.errors import UsageError
from usdtkit.records import dataclass
from usdtkit.trace.fields import HEADER

_PYTHON_TYPES: dict[str, type] = {"u64": int, "i64": int, "bool": bool, "f64": float, "str": str, "bytes": bytes}
_HEADER_TYPES: dict[str, type] = {**dict.fromkeys(HEADER, int), "probe": str}


@dataclass(frozen=True)
class RowType:
    """A class whose initialiser takes `fields`, in this order, or with `by_keyword` by their names."""

    type: type
    fields: tuple[str, ...]
    by_keyword: bool

    @property
    def name(self) -> str:
        """The name of the class, for messages."""
        return self.type.__qualname__

    def choose(
        self, asked: Mapping[str, ex.Expression], known: Mapping[str, ex.Expression]
    ) -> dict[str, ex.Expression]:
        """The fields of the event besides its header: from `asked`, and else from `known`.

        UsageError names the fields that the class lacks, or that nothing is known of.
        """
        if superfluous := [name for name in asked if name not in self.fields]:
            raise UsageError(
                f"{self.name} has no field {', '.join(superfluous)}", hint=f"its fields are {', '.join(self.fields)}"
            )
        needed = [name for name in self.fields if name not in HEADER]
        if unknown := [name for name in needed if name not in asked and name not in known]:
            raise UsageError(
                f"{self.name} needs {', '.join(unknown)}, which is not known here",
                hint=f"give a field=expression for it, or use {', '.join(known)}",
            )
        return {name: asked[name] if name in asked else known[name] for name in needed}

    def check(self, fields: Iterable[Field]) -> None:
        """Raise UsageError where a field is annotated with a type that its values never have."""
        try:
            annotations = typing.get_type_hints(self.type)
        except (NameError, AttributeError, TypeError, SyntaxError):  # names that exist for type checkers alone
            return
        values = _HEADER_TYPES | {
            field.name: str if field.names else _PYTHON_TYPES[field.kind]
            for field in fields
            if field.kind in _PYTHON_TYPES
        }
        for name in self.fields:
            if name in values and not _may_be(annotations.get(name, Any), values[name]):
                kind = values[name].__name__
                raise UsageError(f"{self.name}.{name} must be annotated as {kind}", hint=f"{name}: {kind}")

    def maker(self, names: Mapping[str, str]) -> Callable[[Any], Any]:
        """What makes a row of an event, which has the fields under these `names`."""
        values = attrgetter(*(names.get(field, field) for field in self.fields))
        make, fields = self.type, self.fields
        if len(fields) == 1:  # of which attrgetter makes no tuple
            return lambda event: make(**{fields[0]: values(event)})
        if issubclass(make, tuple):
            make_tuple: Callable[[Any], Any] = make._make  # type: ignore[attr-defined]  # which every NamedTuple has
            return lambda event: make_tuple(values(event))
        if self.by_keyword:
            return lambda event: make(**dict(zip(fields, values(event), strict=True)))
        return lambda event: make(*values(event))


def row_type(into: type) -> RowType:
    """The class as a `RowType`. UsageError where it is none of those that say their fields."""
    if isinstance(into, type):
        if issubclass(into, tuple) and (names := getattr(into, "_fields", ())):
            return RowType(into, tuple(names), False)
        # Both libraries describe a field by an object with `init` and `kw_only`; attrs knows an alias, too.
        described = getattr(into, "__attrs_attrs__", None)
        if described is None and (fields := getattr(into, "__dataclass_fields__", None)) is not None:
            described = [field for field in fields.values() if field._field_type.name != "_FIELD_CLASSVAR"]
        taken = [field for field in described or () if field.init]
        if taken:
            names = tuple(getattr(field, "alias", None) or field.name for field in taken)
            return RowType(into, names, any(field.kw_only is True for field in taken))
    raise UsageError(
        f"{into!r} is not a class that declares fields",
        hint="a dataclass, a NamedTuple or a class of attrs, with a field or more",
    )


def _may_be(annotation: Any, type_: type) -> bool:
    """Whether a value of a type may be what is annotated; true where that cannot be told."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_may_be(part, type_) for part in typing.get_args(annotation))
    if annotation is Any or typing.get_origin(annotation) is not None or not isinstance(annotation, type):
        return True
    return issubclass(type_, annotation) or (annotation is float and type_ is int)
