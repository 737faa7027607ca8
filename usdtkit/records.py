"""What dataclasses does, and NamedTuple of typing, in no time: those compile text for each class, at every start.

Nothing in, classes out; for every module of ours that a start of the command imports. The names mean what they mean
there, with fewer options; type checkers see the originals, and the functions of dataclasses take these classes too.
Imports nothing of ours.
"""

from __future__ import annotations

from collections import namedtuple
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple", "asdict", "dataclass", "field", "replace"]

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
    from typing import NamedTuple
else:

    class _TupleMaker(type):
        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            names = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in names if field in namespace]
            made = namedtuple(name, names, defaults=defaults, module=namespace["__module__"])
            for name, value in namespace.items():
                if name not in ("__annotations__", "__classcell__", "__module__", "__qualname__"):
                    setattr(made, name, value)
            return made

    class NamedTuple(metaclass=_TupleMaker):
        """A tuple whose fields have the names that the class annotates."""

    class field:
        """What there is to say of a field: its default, or what makes one; whether comparisons and repr() have it."""

        def __init__(self, *, default=None, default_factory=None, compare=True, repr=True) -> None:
            self.default = default
            self.make = default_factory
            self.compare = compare
            self.repr = repr

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, repr=True):
        """The class with an initialiser of its annotated names, and what else is asked for."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, slots=slots, eq=eq, repr=repr)
        names = tuple(cls.__annotations__)
        fields = {name: _field(vars(cls)[name]) for name in names if name in vars(cls)}
        added = {"__match_args__": names, "__record__": fields, "__dataclass_fields__": _DataclassFields()}
        if repr:
            shown = [name for name in names if name not in fields or fields[name].repr]
            added["__repr__"] = lambda one: (
                f"{type(one).__qualname__}({', '.join(f'{name}={getattr(one, name)!r}' for name in shown)})"
            )
        if eq:
            compared = [name for name in names if name not in fields or fields[name].compare]
            values = attrgetter(*compared) if compared else lambda _: ()
            added["__eq__"] = lambda one, other: (
                values(one) == values(other) if other.__class__ is one.__class__ else NotImplemented
            )
            added["__hash__"] = (lambda one: hash(values(one))) if frozen else None
        if frozen:
            added |= {"__setattr__": _refuse, "__delattr__": _refuse, "__reduce__": _reduce}
        if slots:  # which only a new class can have
            left_out = {*names, "__dict__", "__weakref__"}
            kept = {name: value for name, value in vars(cls).items() if name not in left_out}
            cls = type(cls)(cls.__name__, cls.__bases__, {**kept, "__slots__": names})
        for name, value in added.items():
            setattr(cls, name, value)
        cls.__init__ = _initialiser(cls, names, slots)
        return cls

    def _field(default):
        return default if isinstance(default, field) else field(default=default)

    def _initialiser(cls, names, slots):
        stores = [getattr(cls, name).__set__ for name in names] if slots else ()
        after = getattr(cls, "__post_init__", None)

        def __init__(self, *values, **named) -> None:
            if named or len(values) != len(names):
                values = _completed(cls, names, values, named)
            if slots:
                for store, value in zip(stores, values):  # noqa: B905 their numbers are equal, and this is quicker
                    store(self, value)
            else:
                self.__dict__.update(zip(names, values))  # noqa: B905
            if after is not None:
                after(self)

        return __init__

    def _completed(cls, names, values, named):
        """The values in order, of those that were given with and without a name, and the defaults."""
        values = [*values]
        for name in names[len(values) :]:
            if name in named:
                values.append(named.pop(name))
            elif name in cls.__record__:
                default = cls.__record__[name]
                values.append(default.default if default.make is None else default.make())
            else:
                raise TypeError(f"{cls.__name__} needs a value for {name}")
        if named or len(values) > len(names):
            raise TypeError(f"{cls.__name__} takes {', '.join(names) or 'nothing'}, each once")
        return values

    def _refuse(self, name, *_):
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def _reduce(self):
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)

    def replace(one, /, **changes):
        """A copy with other values for some fields."""
        return type(one)(**asdict(one) | changes)

    def asdict(one):
        """The fields by name, those of other records within it as they are."""
        return {name: getattr(one, name) for name in one.__match_args__}

    class _DataclassFields:
        """How the module dataclasses knows its classes."""

        def __get__(self, one, cls) -> dict[str, Any]:
            import dataclasses

            names = [(name, annotation) for name, annotation in cls.__annotations__.items()]
            return dataclasses.make_dataclass(cls.__name__, names).__dataclass_fields__
