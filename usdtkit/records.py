"""Records: a subset of dataclasses and of typing.NamedTuple whose classes are made without compiling text.

The standard modules compile source code for each class, and importing dataclasses imports inspect; together that is a
large part of the time in which a command starts. The classes made here behave as the standard ones do in everything
that is supported. Everything else is refused with a TypeError when the class is made, and by type checkers.

Input: classes with annotations. Output: the same classes with the methods of a dataclass. Of usdtkit it imports only
`record_views`, and that only when something inspects a class.

Supported are `dataclass(frozen=, slots=, eq=, repr=)`, `field(default=, default_factory=, compare=, repr=,
metadata=)`, `__post_init__`, ClassVar, inheritance from other records, pattern matching, pickling and copying. The
functions of the module dataclasses accept these classes too. Two things differ: `asdict` here is shallow, and a change
of a frozen record raises AttributeError itself, of which dataclasses.FrozenInstanceError is a subclass.
"""

from __future__ import annotations

from collections import namedtuple
from operator import attrgetter
from reprlib import recursive_repr

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from dataclasses import replace as replace
    from typing import Any, TypeVar, overload
    from typing import NamedTuple as NamedTuple

    from _typeshed import DataclassInstance
    from typing_extensions import dataclass_transform

__all__ = ["Field", "NamedTuple", "asdict", "dataclass", "field", "fields", "replace"]

if TYPE_CHECKING:
    _T = TypeVar("_T")
_MISSING: Any = object()
_NO_METADATA: Mapping[str, Any] = {}


class Field:
    """One field of a record, as `fields` describes it.

    `annotation` is the text of the annotation as it is written in the class. A field without a default is `required`.
    `compare` and `repr` say whether comparisons and `repr()` of the record include the field; `metadata` is what
    `field` was given.
    """

    __slots__ = ("annotation", "compare", "default_factory", "default_value", "metadata", "name", "repr", "required")

    def __init__(
        self,
        default: Any,
        factory: Callable[[], Any] | None = None,
        compare: bool = True,
        repr: bool = True,
        metadata: Mapping[str, Any] = _NO_METADATA,
        name: str = "",
        annotation: str = "",
    ) -> None:
        self.name = name
        self.annotation = annotation
        self.required = default is _MISSING and factory is None
        self.default_value = default
        self.default_factory = factory
        self.compare = compare
        self.repr = repr
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"<field {self.name}: {self.annotation}>"

    @property
    def default(self) -> Any:
        """The value that a record gets if none is given; None for a required field. A default_factory is called."""
        if self.default_factory is not None:
            return self.default_factory()
        return None if self.required else self.default_value


if TYPE_CHECKING:

    @overload
    def field(*, default: _T, compare: bool = ..., repr: bool = ..., metadata: Mapping[str, Any] = ...) -> _T: ...
    @overload
    def field(
        *, default_factory: Callable[[], _T], compare: bool = ..., repr: bool = ..., metadata: Mapping[str, Any] = ...
    ) -> _T: ...
    @overload
    def field(*, compare: bool = ..., repr: bool = ..., metadata: Mapping[str, Any] = ...) -> Any: ...
    def field(**options: Any) -> Any:
        """Describe a field beyond its annotation; the arguments mean what they mean in dataclasses."""

    @overload
    @dataclass_transform(field_specifiers=(field,))
    def dataclass(cls: type[_T], /) -> type[_T]: ...
    @overload
    def dataclass(
        *, frozen: bool = ..., slots: bool = ..., eq: bool = ..., repr: bool = ...
    ) -> Callable[[type[_T]], type[_T]]: ...
    def dataclass(cls: Any = None, /, **options: bool) -> Any:
        """Make a record of a class: give it an initialiser and the other methods of a dataclass."""

else:

    def field(*, default=_MISSING, default_factory=None, compare=True, repr=True, metadata=_NO_METADATA):
        """Describe a field beyond its annotation; the arguments mean what they mean in dataclasses."""
        if default is not _MISSING and default_factory is not None:
            raise TypeError("field() takes a default or a default_factory, and not both")
        return Field(default, default_factory, compare, repr, metadata)

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, repr=True):
        """Make a record of a class: give it an initialiser and the other methods of a dataclass.

        TypeError if the class asks for anything that records do not support.
        """
        if cls is None:
            return lambda cls: _make_record(cls, frozen, slots, eq, repr)
        return _make_record(cls, frozen, slots, eq, repr)

    def replace(record, /, **changes):
        """A copy of a record with other values for some fields."""
        return type(record)(**asdict(record) | changes)


def fields(record: Any) -> tuple[Field, ...]:
    """The fields of a record, or of a class of records, in the order in which its initialiser takes them."""
    cls = record if isinstance(record, type) else type(record)
    if not hasattr(cls, "__record__"):
        raise TypeError(f"{cls.__name__} is not a record")
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__record__" in vars(base):
            annotations.update(base.__annotations__)
    result = []
    for name, declared in cls.__record__.items():
        options = declared if type(declared) is Field else Field(declared)
        result.append(
            Field(
                *(options.default_value, options.default_factory, options.compare, options.repr, options.metadata),
                *(name, _as_written(annotations[name])),
            )
        )
    return tuple(result)


def asdict(record: DataclassInstance) -> dict[str, Any]:
    """The values of a record by field. It is shallow: records that are values stay records."""
    return {name: getattr(record, name) for name in record.__record__}  # type: ignore[attr-defined]


def _make_record(cls: Any, frozen: bool, slots: bool, eq: bool, repr: bool) -> Any:
    own = vars(cls)
    if not _NOT_FOR_RECORDS.isdisjoint(own):
        raise TypeError(f"{cls.__name__} defines {sorted(_NOT_FOR_RECORDS & {*own})[0]}, which a record cannot")
    fields = _collect_fields(cls, own, frozen, slots)
    names = tuple(fields)
    described = [name for name, value in own.items() if type(value) is Field]
    if described and not fields.keys() >= {*described}:
        raise TypeError(f"{cls.__name__} has a field() without an annotation: {', '.join({*described} - {*names})}")
    added: dict[str, Any] = {"__record__": fields, **_VIEWS}
    if "__match_args__" not in own:
        added["__match_args__"] = names
    if repr and "__repr__" not in own:
        added["__repr__"] = _repr
    if eq:
        _add_comparisons(fields, frozen, own, added)
    if frozen:
        added["__setattr__"], added["__delattr__"] = _refuse_to_set, _refuse_to_delete
        if slots and "__getstate__" not in own:
            added["__getstate__"], added["__setstate__"] = _getstate, _setstate
    if slots:  # which only a new class can have
        inherited = [name for base in cls.__mro__[1:-1] for name in vars(base).get("__slots__", ())]
        added["__slots__"] = tuple(name for name in names if name not in inherited) if inherited else names
        added["__qualname__"] = cls.__qualname__
        left_out = {*names, "__dict__", "__weakref__"}
        cls = type(cls)(cls.__name__, cls.__bases__, {name: own[name] for name in own if name not in left_out} | added)
    else:
        for name, value in added.items():
            setattr(cls, name, value)
        for name in described:
            if own[name].default_value is _MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, own[name].default_value)
    cls.__init__ = _initialiser(cls, fields, slots)
    return cls


def _collect_fields(cls: Any, namespace: Mapping[str, Any], frozen: bool, slots: bool) -> dict[str, Any]:
    """The fields of a class and of the records it derives from. The value is _MISSING, a default, or a Field."""
    result: dict[str, Any] = {}
    for base in cls.__mro__[-2:0:-1]:
        if "__record__" in vars(base):
            if (vars(base).get("__setattr__") is _refuse_to_set) != frozen:
                raise TypeError(f"{cls.__name__} derives from {base.__name__}: both must be frozen, or neither")
            if "__slots__" in vars(base) and not slots:
                raise TypeError(f"{cls.__name__} derives from {base.__name__}, and so needs slots=True")
            result.update(vars(base)["__record__"])
        elif "__dataclass_fields__" in vars(base):
            raise TypeError(f"{cls.__name__} is a record and cannot derive from the dataclass {base.__name__}")
    annotations = cls.__annotations__
    for name, annotation in annotations.items():
        if type(annotation) is not str:
            annotation = _as_written(annotation)
        if ("Var" in annotation or "KW_ONLY" in annotation) and _is_class_variable(cls, name, annotation):
            continue
        declared = namespace.get(name, _MISSING)
        default = declared.default_value if type(declared) is Field else declared
        if default.__class__.__hash__ is None:
            raise TypeError(f"{cls.__name__}.{name}: all records would share this default; use default_factory")
        if result and name in result and _is_required(declared) and not _is_required(result[name]):
            raise TypeError(f"{cls.__name__}.{name} has a default in a base class; state the default again")
        result[name] = declared
    last_default = ""
    for name, declared in result.items():
        if declared is not _MISSING and (type(declared) is not Field or not declared.required):
            last_default = name
        elif last_default:
            raise TypeError(f"{cls.__name__}.{name} has no default and follows {last_default}, which has one")
    return result


def _is_required(declared: Any) -> bool:
    return declared is _MISSING or (type(declared) is Field and declared.required)


def _as_written(annotation: Any) -> str:
    """The text of an annotation, even if the module does not import annotations from __future__."""
    if type(annotation) is str:
        return annotation
    return annotation.__qualname__ if type(annotation) is type else repr(annotation)


def _is_class_variable(cls: Any, name: str, annotation: str) -> bool:
    word = annotation.partition("[")[0].rpartition(".")[2].strip()
    if word == "InitVar" or "KW_ONLY" in word:
        raise TypeError(f"{cls.__name__}.{name}: records do not support {annotation}")
    return word == "ClassVar"


def _add_comparisons(fields: dict[str, Any], frozen: bool, namespace: Mapping[str, Any], added: dict[str, Any]) -> None:
    compared = [name for name, declared in fields.items() if type(declared) is not Field or declared.compare]
    values: Callable[[Any], Any]
    if len(compared) > 1:
        values = attrgetter(*compared)
    elif compared:  # of one name attrgetter makes no tuple; tuples take what is identical for equal
        value = attrgetter(compared[0])
        values = lambda record: (value(record),)  # noqa: E731
    else:
        values = lambda _: ()  # noqa: E731
    if "__eq__" not in namespace:
        added["__eq__"] = lambda record, other: (
            values(record) == values(other) if other.__class__ is record.__class__ else NotImplemented
        )
    # In a class that defines __eq__ alone, __hash__ is None: that does not count as defined.
    if "__hash__" not in namespace or (namespace["__hash__"] is None and "__eq__" in namespace):
        added["__hash__"] = (lambda record: hash(values(record))) if frozen else None


def _initialiser(cls: Any, fields: dict[str, Any], slots: bool) -> Callable[..., None]:
    names = tuple(fields)
    number = len(names)
    has_post_init = hasattr(cls, "__post_init__")
    stores = [getattr(cls, name).__set__ for name in names] if slots else ()

    def __init__(self: Any, /, *values: Any, **named: Any) -> None:
        if named or len(values) != number:
            values = _complete(cls, fields, values, named)
        if slots:
            for store, value in zip(stores, values):  # noqa: B905 their numbers are equal, and this is quicker
                store(self, value)
        else:
            self.__dict__.update(zip(names, values))  # noqa: B905
        if has_post_init:
            self.__post_init__()

    return __init__


def _complete(cls: Any, fields: dict[str, Any], values: Iterable[Any], named: dict[str, Any]) -> tuple[Any, ...]:
    """All values in the order of the fields, from those given by place, those given by name, and the defaults."""
    result = [*values]
    for name in [*fields][len(result) :]:
        declared = fields[name]
        if name in named:
            result.append(named.pop(name))
        elif type(declared) is not Field and declared is not _MISSING:
            result.append(declared)
        elif _is_required(declared):
            raise TypeError(f"{cls.__name__} needs a value for {name}")
        else:
            result.append(declared.default)
    if named or len(result) > len(fields):
        raise TypeError(f"{cls.__name__} takes {', '.join(fields) or 'no values'}, each once")
    return tuple(result)


@recursive_repr()
def _repr(self: Any) -> str:
    shown = [
        f"{name}={getattr(self, name)!r}"
        for name, declared in self.__record__.items()
        if type(declared) is not Field or declared.repr
    ]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    _refuse(self, name)
    object.__setattr__(self, name, value)


def _refuse_to_delete(self: Any, name: str) -> None:
    _refuse(self, name)
    object.__delattr__(self, name)


def _refuse(self: Any, name: str) -> None:
    """A plain class that derives from a frozen record may have attributes of its own."""
    if "__record__" in vars(type(self)) or name in self.__record__:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__record__]


def _setstate(self: Any, state: Iterable[Any]) -> None:
    for name, value in zip(self.__record__, state, strict=True):
        object.__setattr__(self, name, value)


class _View:
    """An attribute of classes that is made whenever something asks for it, since almost nothing does."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, record: Any, cls: Any) -> Any:
        from usdtkit import record_views

        return getattr(record_views, self.name)(cls, fields(cls))


_VIEWS: dict[str, Any] = {
    "__dataclass_fields__": _View("dataclass_fields"),
    "__signature__": _View("signature"),
}
_NOT_FOR_RECORDS = frozenset(("__init__", "__setattr__", "__delattr__", "__slots__"))


if not TYPE_CHECKING:

    class _TupleMaker(type):
        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            if bases != (NamedTuple,):
                raise TypeError(f"{name}: a NamedTuple has no other base class")
            annotations = namespace.get("__annotations__")
            if annotations is None:  # from Python 3.14 on, if a module does not import annotations from __future__
                annotations = super().__new__(cls, name, (), dict(namespace)).__annotations__
            defaults = []
            for field in annotations:
                if field in namespace:
                    defaults.append(namespace.pop(field))
                elif defaults:
                    raise TypeError(f"{name}.{field} has no default and follows a field that has one")
            made = namedtuple(name, annotations, defaults=defaults, module=namespace["__module__"])
            for attribute, value in namespace.items():
                if attribute in _NOT_FOR_TUPLES:
                    raise TypeError(f"{name} defines {attribute}, which a NamedTuple cannot")
                if attribute not in ("__classcell__", "__module__"):
                    setattr(made, attribute, value)
            made.__annotations__ = annotations
            return made

    class NamedTuple(metaclass=_TupleMaker):
        """A tuple whose fields have the names that the class annotates."""

    _NOT_FOR_TUPLES = frozenset(
        ("__new__", "__init__", "__slots__", "__getnewargs__", "_fields", "_make", "_replace", "_asdict")
    )
