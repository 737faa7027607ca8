"""How records look to the standard modules dataclasses and inspect.

Input: a class of records and its fields, from `records`. Output: what those modules look for as attributes of a class.
No command needs it at its start, so it stands apart from `records`.
"""

from __future__ import annotations

import dataclasses
from inspect import Parameter, Signature
from typing import Any, Protocol


class Described(Protocol):
    """What is needed of a field: see `records.Field`."""

    name: str
    annotation: str
    required: bool
    default_value: Any
    default_factory: Any
    compare: bool
    repr: bool
    metadata: Any


class _Factory:
    """What stands in a signature for a default that is made at each call."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def dataclass_fields(cls: type[Any], fields: tuple[Described, ...]) -> dict[str, dataclasses.Field[Any]]:
    """The fields by name, for the functions of the module dataclasses."""
    described = [(field.name, field.annotation, _dataclass_field(field)) for field in fields]
    stand_in: Any = dataclasses.make_dataclass(cls.__name__, described)
    return dict(stand_in.__dataclass_fields__)


def _dataclass_field(field: Described) -> Any:
    options: dict[str, Any] = {}
    if field.default_factory is not None:
        options["default_factory"] = field.default_factory
    elif not field.required:
        options["default"] = field.default_value
    return dataclasses.field(compare=field.compare, repr=field.repr, metadata=field.metadata, **options)


def signature(cls: type[Any], fields: tuple[Described, ...]) -> Signature | None:
    """How the class is called, or None for a class that derives from a record and has an initialiser of its own."""
    initialised = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if "__record__" not in vars(initialised):
        return None
    parameters = [
        Parameter(field.name, Parameter.POSITIONAL_OR_KEYWORD, default=_default(field), annotation=field.annotation)
        for field in fields
    ]
    return Signature(parameters, return_annotation=None)


def _default(field: Described) -> Any:
    if field.required:
        return Parameter.empty
    return field.default_value if field.default_factory is None else _FACTORY
