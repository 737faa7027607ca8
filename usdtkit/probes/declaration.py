"""Keyword arguments of `Provider.probe` → checked specs: names, argument types, limits.

Pure. `provider`, `spans` and `signature` call it, `image` writes the specs into a file, and native/probe.c fires by
their shapes. The types are those of `usdtkit.argumenttypes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.errors import UsageError
from usdtkit.records import NamedTuple

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from usdtkit.probes.types import TypeName

# Tracers read at most twelve: libbpf, sdt.h and bpftrace, with arg0 to arg11.
MAX_OPERANDS = 12
# perf cuts the names of events at 64 characters, and a file name holds the provider's name and 20 more.
MAX_NAME = 64
MAX_DOC = 4096
MAX_UNIT = 32
MAX_ENUM_NAMES = 256
# Bytes of a json argument. The default is what every tracer can read in one piece.
DEFAULT_JSON_LIMIT = 4096
MIN_JSON_LIMIT, MAX_JSON_LIMIT = 64, 1 << 20
STABILITIES = ("", "private", "unstable", "evolving", "stable")
ON_ERROR = ("raise", "drop")
_DEFAULTS = {"doc": "", "stability": ""}  # those that are not None
# How sites are made; see `Provider`.
NOPS = ("safe", "fast")

Converter = dict[object, int] | Callable[[object], bytes] | None


class ArgumentSpec(NamedTuple):
    """One argument as declared. `names` are those of an enum with their numbers, `limit` the bytes of a json.

    `numbers` maps the values that a call may give for an enum to its numbers. It is not written to the file.
    """

    name: str
    type: str
    unit: str = ""
    doc: str = ""
    names: tuple[tuple[str, int], ...] = ()
    limit: int = 0
    numbers: Mapping[object, int] | None = None

    def canonical(self) -> str:
        """Return a text that differs if anything differs that the file says about the argument."""
        if self.unit or self.doc or self.names or self.limit:
            return repr((self.name, self.type, self.unit, self.doc, self.names, self.limit))
        return f"{self.name} {self.type}"


class ProbeSpec(NamedTuple):
    """One probe as declared."""

    name: str
    doc: str
    arguments: tuple[ArgumentSpec, ...]
    stability: str = ""


def canonical(names: Sequence[str], docs: Sequence[str], stabilities: Sequence[str], arguments: Sequence[str]) -> str:
    """Return a text that differs if anything differs that a file says about its probes.

    Each sequence has one item for each probe; `arguments` are their `canonical_arguments`. The text is unambiguous,
    because no item of `arguments` has an empty line, and no name has a line break.
    """
    notes = repr((docs, stabilities)) if any(docs) or any(stabilities) else ""
    return "\n".join(names) + f"\n{notes}\n" + "\n\n".join(arguments)


def canonical_arguments(arguments: Sequence[ArgumentSpec]) -> str:
    """Return a text that differs if anything differs that a file says about a probe's arguments."""
    return "\n".join([argument.canonical() for argument in arguments])


class Shape(NamedTuple):
    """Checked arguments, shared by all probes that have the same ones. native/probe.h names the first four items.

    `pairs` has the name and type of each argument. `converters` has for an enum the number of each value that a call
    may give, for a json the function that encodes it, else None. `type_numbers` has the number of each type in
    DECLARABLE as a byte. `text` is canonical, and `arguments` has the specs.
    """

    pairs: tuple[tuple[str, str], ...]
    converters: tuple[Converter, ...]
    type_numbers: bytes
    text: str
    arguments: tuple[ArgumentSpec, ...]


def argument(
    type: TypeName | Literal["enum", "enum?"],
    *,
    unit: str = "",
    doc: str = "",
    names: Mapping[str, int] | tuple[str, ...] | list[str] = (),
    limit: int | None = None,
) -> ArgumentSpec:
    """Return a type with more information for the declaration of an argument: `latency=argument("u64", unit="ns")`.

    `unit` and `doc` are for people. A type with a "?" takes None too. An "enum" has `names`, which are numbered from 0
    unless a mapping gives the numbers; these must fit into 32 bits, signed. A call gives a name or a number. A "json"
    has at most `limit` bytes (4096); in place of a longer one, tracers get {"$truncated": its length, "head": its
    beginning}. Raises UsageError.
    """
    what = f"an argument of type {type!r}"
    if not isinstance(type, str) or type not in DECLARABLE:
        raise _unknown_type(what, type)
    if (type in ("enum", "enum?")) != bool(names):
        raise UsageError(
            f"{what} {'needs' if type == 'enum' else 'cannot have'} names",
            hint='argument("enum", names=("new", "paid"))',
        )
    if limit is not None and type != "json":
        raise UsageError(f"{what} cannot have a limit", hint='argument("json", limit=16384)')
    if type == "json":
        limit = DEFAULT_JSON_LIMIT if limit is None else limit
        if not _is_integer(limit) or not MIN_JSON_LIMIT <= limit <= MAX_JSON_LIMIT:
            raise UsageError(f"a json argument cannot be limited to {limit!r} bytes", hint="64 to 1048576")
    check_text(f"the unit of {what}", unit, MAX_UNIT)
    check_text(f"the doc of {what}", doc, MAX_DOC)
    numbered = _enum_names(what, names)
    numbers: dict[object, int] = {**dict(numbered), **{number: number for _, number in numbered}}
    return ArgumentSpec("", type, unit, doc, numbered, limit or 0, numbers or None)


def check_name(what: str, name: object, *, hyphen: bool = True) -> str:
    """Return `name` if it is valid for tracers, else raise UsageError. `what` says in the message what is named."""
    if not isinstance(name, str):
        raise UsageError(f"the name of {what} must be a str, not {type(name).__name__}")
    if len(name) > MAX_NAME:
        raise UsageError(
            f"the name of {what} has {len(name)} characters, at most {MAX_NAME} are possible", hint="shorten it"
        )
    if not _is_name(name.replace("-", "_") if hyphen and not name.startswith("-") else name):
        extra = ", underscores and hyphens" if hyphen else " and underscores"
        raise UsageError(
            f"{name!r} cannot be the name of {what}",
            hint=f"use ASCII letters, digits{extra}, beginning with a letter or an underscore",
        )
    return name


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier()


def check_text(what: str, text: object, maximum: int) -> str:
    """Return `text` if the file's metadata can hold it, else raise UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"{what} must be a str, not {type(text).__name__}")
    if len(text) > maximum:
        raise UsageError(f"{what} has {len(text)} characters, at most {maximum} are possible")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} is not valid Unicode: {error.reason}") from error
    return text


def taken_back(arguments: dict[str, Any], /, **options: Any) -> list[Any]:
    """Return the values of the options of a declaration, but the default for one whose value is a type.

    Such a keyword declares an argument of that name: doc="str". It is added to the arguments.
    """
    meant = {name: value for name, value in options.items() if is_type(value)}
    arguments.update(meant)
    return [_DEFAULTS.get(name) if name in meant else value for name, value in options.items()]


def is_type(kind: object) -> bool:
    """Return whether an argument can be declared with this as its type."""
    if isinstance(kind, str):
        return kind in DECLARABLE
    return isinstance(kind, ArgumentSpec) or hasattr(_without_none(kind), "__members__")


def _without_none(kind: Any) -> Any:
    """Return X of X | None, and anything else as it is."""
    parts = getattr(kind, "__args__", ()) if not isinstance(kind, type) else ()
    others = [part for part in parts if part is not type(None)] if isinstance(parts, tuple) else []
    return others[0] if len(others) == 1 < len(parts) else kind


def optional(spec: ArgumentSpec) -> ArgumentSpec:
    """Return the same argument with a type that takes None too."""
    return spec if spec.type.endswith("?") or spec.type == "json" else spec._replace(type=f"{spec.type}?")


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of the choices, else raise UsageError."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{what} cannot be {value!r}", hint=f"one of {', '.join(filter(None, choices))}")
    return value


# Many probes have the same arguments, which are checked once. The keys are (name, type, name, type…) as declared.
known_shapes: dict[object, Shape] = {}
_MAX_SHAPES = 1024
_TYPES = f"one of {', '.join(name for name in DECLARABLE if not name.endswith('?'))}"
_TYPE_NUMBERS = {name: number for number, name in enumerate(DECLARABLE)}


def shape_of(what: str, arguments: Mapping[str, object]) -> Shape:
    """Return the shape of arguments that are given as `name: type`. Raises UsageError like `check_arguments`."""
    key = tuple(chain.from_iterable(arguments.items()))
    try:
        known = known_shapes.get(key)
    except TypeError:  # a spec of an enum is not hashable, and neither may be a mistake
        known, key = None, ()
    if known is not None:
        return known
    specs = check_arguments(what, arguments)
    pairs = tuple([spec[:2] for spec in specs])
    numbers = bytes([_TYPE_NUMBERS[spec.type] for spec in specs])
    shape = Shape(pairs, tuple(map(_converter, specs)), numbers, canonical_arguments(specs), specs)
    if len(known_shapes) >= _MAX_SHAPES:
        known_shapes.clear()
    if key or not arguments:
        known_shapes[key] = shape
    return shape


def _converter(argument: ArgumentSpec) -> Converter:
    if argument.type in ("enum", "enum?"):
        return dict(argument.numbers or {})
    if argument.type == "json":
        from usdtkit.probes.encoding import json_encoder

        return json_encoder(argument.limit)
    return None


def check_arguments(what: str, arguments: Mapping[str, object]) -> tuple[ArgumentSpec, ...]:
    """Return the specs of arguments that are given as `name: type`.

    Raises UsageError if a name or a type is wrong, or if there are too many operands.
    """
    checked = []
    operands = 0
    for name, kind in arguments.items():
        # Most names are right. `check_name` is called for the others, because it finds the reason.
        if not isinstance(name, str) or len(name) > MAX_NAME or not _is_name(name):
            check_name(f"an argument of {what}", name, hyphen=False)
        spec = _spec(what, name, kind)
        operands += len(DECLARABLE[spec.type])
        checked.append(spec)
    if operands > MAX_OPERANDS:
        raise UsageError(
            f"{what} needs {operands} operands, at most {MAX_OPERANDS} are possible (bytes counts as two, as does a "
            "number that may be None)",
            hint="split it into two probes that share an id",
        )
    return tuple(checked)


def _spec(what: str, name: str, kind: object) -> ArgumentSpec:
    if isinstance(kind, str) and kind in DECLARABLE and kind not in ("enum", "enum?", "json"):
        return ArgumentSpec(name, kind)
    if kind == "json":
        return ArgumentSpec(name, "json", limit=DEFAULT_JSON_LIMIT)
    if isinstance(kind, ArgumentSpec):
        return kind._replace(name=name)
    if isinstance(kind, type) and isinstance(members := getattr(kind, "__members__", None), Mapping):
        return _of_enum(f"argument {name!r} of {what}", name, members)
    if (present := _without_none(kind)) is not kind:
        return optional(_spec(what, name, present))
    if kind in ("enum", "enum?"):
        raise UsageError(
            f"argument {name!r} of {what} is an enum without names",
            hint='argument("enum", names=("new", "paid")), or a subclass of enum.Enum',
        )
    raise _unknown_type(f"argument {name!r} of {what}", kind)


def _of_enum(what: str, name: str, members: Mapping[str, Any]) -> ArgumentSpec:
    """Return the spec of an enum.Enum. Its numbers are its values if all are integers, else they count from 0.

    A call may give a member, a name or a value.
    """
    values = [member.value for member in members.values()]
    if all(map(_is_integer, values)):
        numbered = _enum_names(what, dict(zip(members, values, strict=True)))
    else:
        numbered = _enum_names(what, list(members))
    numbers: dict[object, int] = {}
    for member, number in numbered:
        numbers[member] = numbers[members[member]] = number
    for member, number in numbered:
        # A call cannot give a value that is not hashable, or that is the name of another member.
        if getattr(type(members[member].value), "__hash__", None) is not None:
            numbers.setdefault(members[member].value, number)
    return ArgumentSpec(name, "enum", names=numbered, numbers=numbers)


def _enum_names(what: str, names: Mapping[str, int] | tuple[str, ...] | list[str]) -> tuple[tuple[str, int], ...]:
    pairs = list(names.items()) if isinstance(names, Mapping) else [(name, at) for at, name in enumerate(names)]
    if len(pairs) > MAX_ENUM_NAMES:
        raise UsageError(f"{what} has {len(pairs)} names, at most {MAX_ENUM_NAMES} are possible")
    for name, number in pairs:
        if not check_text(f"a name of {what}", name, MAX_NAME):
            raise UsageError(f"a name of {what} is empty")
        if not _is_integer(number) or not -(2**31) <= number < 2**31:
            raise UsageError(f"the number of {name!r} of {what} must be an integer of 32 bits, not {number!r}")
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"{what} has the same name twice")
    return tuple((name, int(number)) for name, number in pairs)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unknown_type(what: str, kind: object) -> UsageError:
    return UsageError(
        f"{what} has the unknown type {kind!r}", hint=f"{_TYPES}, or an enum.Enum; with ? it takes None too"
    )
