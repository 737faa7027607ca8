"""A tool's options, declared once as a frozen record → the arguments of its command line, and back.

Input: a class derived from `ToolOptions`, whose fields are made by `option`. Output: arguments of an argparse parser,
and from what was parsed an instance of the class. Python code that calls a tool makes the instance itself.

    class Options(ToolOptions):
        min_ms: float = option("-m", type=milliseconds, default=0.0, metavar="MS", help="show calls of MS ms or more")
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from usdtkit.errors import UsageError, one_of

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        """Tells type checkers how `ToolOptions` treats its fields."""
        return lambda cls: cls


REQUIRED: Any = object()
"""The default of an option that must be given."""


class Option:
    """How one field is spelled on the command line, and its default."""

    def __init__(
        self, flags: Sequence[str], default: Any, dest: str, session: str, arguments: Mapping[str, Any]
    ) -> None:
        self.flags = tuple(flags)
        self.default = default
        self.dest = dest
        self.session = session
        self.arguments = dict(arguments)

    @property
    def is_sequence(self) -> bool:
        """Whether the value is a tuple, because the option can be given several times or with several words."""
        return self.arguments.get("action") in ("append", "extend") or self.arguments.get("nargs") in ("+", "*")

    @property
    def is_choice(self) -> bool:
        """Whether the field says that its flag, and no other of the same `dest`, was given."""
        return "const" in self.arguments and "nargs" not in self.arguments

    def add_to(self, parser: Any, name: str) -> None:
        """Add the argument for the field `name`, unless the field takes its value from another option."""
        if not self.flags and not self.arguments:
            return
        arguments = dict(self.arguments)
        default = None if self.is_sequence and not self.default else self.default
        if self.flags:
            arguments["dest"] = self.dest or name
            if default is REQUIRED:
                arguments["required"] = True
            elif "const" not in arguments:
                arguments["default"] = default
            if self.is_choice:
                arguments["action"] = "store_const"
            elif self.default is False and "action" not in arguments:
                arguments["action"] = "store_true"
            parser.add_argument(*self.flags, **arguments)
            return
        if default is not REQUIRED:
            arguments |= {"default": default} | ({} if "nargs" in arguments else {"nargs": "?"})
        parser.add_argument(self.dest or name, **arguments)

    def value_in(self, parsed: argparse.Namespace, name: str) -> Any:
        """The value of the field `name` in the parsed command line."""
        value = getattr(parsed, self.dest or name)
        if self.is_choice:
            return value == self.arguments["const"]
        if self.is_sequence:
            return tuple(value or ())
        return value

    def checked(self, name: str, value: Any) -> Any:
        """The value of the field `name` as an options record keeps it. UsageError where the field cannot have it."""
        if self.is_sequence:
            if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
                raise UsageError(f"{name} has several values: {value!r} is one", hint=f"{name}=[{value!r}]")
            return tuple(value)
        choices = self.arguments.get("choices")
        if value is None and self.default is not None:
            raise UsageError(f"{name} cannot be None", hint="leave it out for its default")
        if choices is not None and value is not None and value not in choices:
            raise UsageError(f"{name} cannot be {value!r}", hint=one_of(value, choices))
        return value


def option(
    *flags: str,
    default: Any = REQUIRED,
    dest: str = "",
    session: str = "",
    **arguments: Any,
) -> Any:
    """A field of `ToolOptions`. Without flags it is a positional argument; without a default it must be given.

    `arguments` are those of argparse's `add_argument`: help, type, metavar, choices, nargs, action. A field whose
    default is False is a flag. Several values arrive as a tuple. With `const`, the field says whether the flag has set
    `dest` to this value. `dest` is where argparse keeps the value, if not under the field's name: with neither
    flags nor arguments, the field has the value of an option that is declared elsewhere. `session` names the argument
    of the session that the value is, such as "pid" or "string_size".
    """
    return Option(flags, default, dest, session, arguments)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
class ToolOptions:
    """Base of the options of tools: an immutable record, made by keywords.

    UsageError says which option is missing, unknown, or has a value that it cannot have.
    A class that derives from several has the fields of all; its own come first on the command line.
    """

    __options__: ClassVar[dict[str, Option]] = {}
    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of names of fields of which at most one may be given, besides those of the classes it derives from."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, Option)}
        inherited: dict[str, Option] = {}
        for base in cls.__mro__[1:]:
            for name, value in getattr(base, "__options__", {}).items():
                if name not in declared:
                    inherited.setdefault(name, value)
        cls.__options__ = {**declared, **inherited}

    def __init__(self, **values: Any) -> None:
        options = type(self).__options__
        missing = [name for name, declared in options.items() if name not in values and declared.default is REQUIRED]
        unknown = [name for name in values if name not in options]
        if missing or unknown:
            where = type(self).__module__
            what = f"needs {', '.join(missing)}" if missing else f"has no {', '.join(unknown)}"
            raise UsageError(f"{where}.Options {what}", hint=f"its options are {', '.join(options)}")
        for name, value in values.items():
            values[name] = options[name].checked(name, value)
        self.__dict__.update({name: declared.default for name, declared in options.items()} | values)

    def session_values(self) -> list[tuple[str, Any]]:
        """Pairs of an argument of the session and its value, from the fields that name one."""
        options = type(self).__options__.items()
        return [(declared.session, getattr(self, name)) for name, declared in options if declared.session]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"options cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"options cannot be changed: {name}")

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = object.__hash__

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments for all fields to a parser."""
        groups: dict[str, Any] = {}
        for names in {names: None for base in cls.__mro__ for names in getattr(base, "exclusive", ())}:
            groups |= dict.fromkeys(names, parser.add_mutually_exclusive_group())
        for name, declared in cls.__options__.items():
            declared.add_to(groups.get(name, parser), name)

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Any:
        """The record of what a parser has parsed and checked. `parsed` may hold defaults that are no choice of a user,
        such as the language in the name of a tool."""
        record = cls.__new__(cls)
        record.__dict__.update({name: option.value_in(parsed, name) for name, option in cls.__options__.items()})
        return record
