"""An annotated function → the arguments of a probe, as `declaration` takes them.

Input: the function that `Provider.define` decorates. Output: the name and declared type of each parameter.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.errors import UsageError
from usdtkit.probes.declaration import ArgumentSpec, optional

# The types of arguments for Python's own types.
_BUILTIN: dict[object, str] = {int: "i64", float: "f64", bool: "bool", str: "str", bytes: "bytes", object: "json"}
# co_flags: the function has *args or **kwargs
_VARIADIC = 0x04 | 0x08


def arguments_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the declared type of each parameter by name, in order. Raises UsageError."""
    if not isinstance(function, FunctionType):
        raise UsageError(f"a probe is defined by a function, not by {function!r}")
    what = f"probe {function.__name__}"
    code = function.__code__
    if code.co_flags & _VARIADIC or function.__defaults__ or function.__kwdefaults__:
        raise UsageError(f"{what} has a fixed number of arguments", hint="no *args, no **kwargs and no defaults")
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    resolved = _Resolved(function)
    return {name: _type(f"argument {name!r} of {what}", name, resolved) for name in names}


class _Resolved:
    """The annotations as objects. They are evaluated only if one is more than the name of a type."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.raw: dict[str, Any] = function.__annotations__
        self._hints: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        if self._hints is None:
            self._hints = typing.get_type_hints(self.function, include_extras=True)
        return self._hints[name]


def _type(what: str, name: str, annotations: _Resolved) -> object:
    raw = annotations.raw.get(name)
    if raw is None:
        raise UsageError(f"{what} has no type", hint="annotate it: u64, str, …")
    if isinstance(raw, str) and raw in DECLARABLE:
        return raw
    try:
        hint = annotations[name]
    except Exception as error:
        raise UsageError(f"{what}: its annotation {raw!r} cannot be evaluated: {error}") from error
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        present = [each for each in typing.get_args(hint) if each is not type(None)]
        if len(present) == 1:
            return _optional(_declared(present[0]))
    return _declared(hint)


def _declared(hint: Any) -> Any:
    """Return what an annotation that is no union declares."""
    if typing.get_origin(hint) is typing.Annotated:
        base, *metadata = typing.get_args(hint)
        for item in reversed(metadata):
            if isinstance(item, ArgumentSpec) or (isinstance(item, str) and item in DECLARABLE):
                return item
        hint = base
    return _BUILTIN.get(hint, hint) if isinstance(hint, type) else hint


def _optional(declared: Any) -> Any:
    if isinstance(declared, ArgumentSpec):
        return optional(declared)
    if isinstance(declared, str) and f"{declared}?" in DECLARABLE:
        return f"{declared}?"
    return typing.Union[declared, None] if isinstance(declared, type) else declared  # noqa: UP007 made of a value
