"""What may be declared: names, argument types, limits. Keyword arguments of `Provider.probe` → checked specs.

Pure. `provider` and `signature` call it, `image` writes what it returns; the types are those of
`usdtkit.argumenttypes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.errors import UsageError

# Tracers read no more than twelve: libbpf, sdt.h and bpftrace's arg0…arg11.
MAX_OPERANDS = 12
# perf's event names end at 64, and a file name has to hold the provider's with 20 more.
MAX_NAME = 64
MAX_DOC = 4096
MAX_UNIT = 32
MAX_ENUM_NAMES = 256
# Bytes of a json argument: what a tracer can read in one piece, unless the declaration says otherwise.
JSON_LIMIT = 4096
SMALLEST_JSON_LIMIT, LARGEST_JSON_LIMIT = 64, 1 << 20
STABILITIES = ("", "private", "unstable", "evolving", "stable")
ON_ERROR = ("raise", "drop")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_ARGUMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Converter = dict[object, int] | Callable[[object], bytes] | None


class ArgumentSpec(NamedTuple):
    """One argument as declared; `names` are those of an enum with their numbers, `limit` the most bytes of a json.

    `numbers` is how the values of a call become an enum's numbers; it stays in the process.
    """

    name: str
    type: str
    unit: str = ""
    doc: str = ""
    names: tuple[tuple[str, int], ...] = ()
    limit: int = 0
    numbers: Mapping[object, int] | None = None

    def canonical(self) -> str:
        """All that a file says of it, as a text that differs when anything does."""
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
    """All that a file says of its probes, as a text that differs when anything does; an item of each is of one probe.

    `arguments` are `canonical_arguments`. None of these has an empty line, and names have no line's end.
    """
    more = repr((docs, stabilities)) if any(docs) or any(stabilities) else ""
    return "\n".join(names) + f"\n{more}\n" + "\n\n".join(arguments)


def canonical_arguments(arguments: Sequence[ArgumentSpec]) -> str:
    """All that a file says of a probe's arguments, as a text that differs when anything does."""
    return "\n".join([argument.canonical() for argument in arguments])


class Shape(NamedTuple):
    """Checked arguments, for all probes that have the same: what native/probe.c reads of them, and the specs.

    It reads (name, type) pairs, a converter for each (of an enum its numbers by all that may be said for them, of a
    json what encodes it, else None), the types as their numbers in DECLARABLE, and the canonical text.
    """

    pairs: tuple[tuple[str, str], ...]
    converters: tuple[Converter, ...]
    kinds: bytes
    text: str
    arguments: tuple[ArgumentSpec, ...]


def argument(
    type: str,
    *,
    unit: str = "",
    doc: str = "",
    names: Mapping[str, int] | tuple[str, ...] | list[str] = (),
    limit: int | None = None,
) -> ArgumentSpec:
    """An argument's type with more to say of it: `latency=argument("u64", unit="ns")`.

    `unit` and `doc` are for people. An "enum" has `names`, numbered from 0 unless a mapping says how, and takes a name
    or a number; its numbers must fit 32 bits, signed. A "json" is at most `limit` bytes long (4096): of a longer one
    tracers get {"$truncated": its length, "head": its beginning}. Raises UsageError.
    """
    what = f"an argument of type {type!r}"
    if not isinstance(type, str) or type not in DECLARABLE:
        raise _unknown_type(what, type)
    if (type == "enum") != bool(names):
        raise UsageError(
            f"{what} {'needs' if type == 'enum' else 'cannot have'} names",
            hint='argument("enum", names=("new", "paid"))',
        )
    if limit is not None and type != "json":
        raise UsageError(f"{what} cannot have a limit", hint='argument("json", limit=16384)')
    if type == "json":
        limit = JSON_LIMIT if limit is None else limit
        if not _is_integer(limit) or not SMALLEST_JSON_LIMIT <= limit <= LARGEST_JSON_LIMIT:
            raise UsageError(f"a json argument cannot be limited to {limit!r} bytes", hint="64 to 1048576")
    check_text(f"the unit of {what}", unit, MAX_UNIT)
    check_text(f"the doc of {what}", doc, MAX_DOC)
    numbered = _enum_names(what, names)
    numbers: dict[object, int] = {**dict(numbered), **{number: number for _, number in numbered}}
    return ArgumentSpec("", type, unit, doc, numbered, limit or 0, numbers or None)


def check_name(what: str, name: object, *, hyphen: bool = True) -> str:
    """Return `name` if tracers can spell it, else raise UsageError; `what` says whose name it is."""
    if not isinstance(name, str):
        raise UsageError(f"the name of {what} must be a str, not {type(name).__name__}")
    if len(name) > MAX_NAME:
        raise UsageError(
            f"the name of {what} has {len(name)} characters, at most {MAX_NAME} are possible", hint="shorten it"
        )
    if not (_NAME if hyphen else _ARGUMENT_NAME).match(name):
        extra = ", underscores and hyphens" if hyphen else " and underscores"
        raise UsageError(
            f"{name!r} cannot be the name of {what}",
            hint=f"use ASCII letters, digits{extra}, beginning with a letter or an underscore",
        )
    return name


def check_text(what: str, text: object, most: int) -> str:
    """Return `text` if it can stand in the file's metadata, else raise UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"{what} must be a str, not {type(text).__name__}")
    if len(text) > most:
        raise UsageError(f"{what} has {len(text)} characters, at most {most} are possible")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} is not valid Unicode: {error.reason}") from error
    return text


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of the choices, else raise UsageError."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{what} cannot be {value!r}", hint=f"one of {', '.join(filter(None, choices))}")
    return value


# Many probes have the same arguments, and the start of an application should not wait for the second check. The keys
# are name, type, name, type… as they were declared.
known_shapes: dict[object, Shape] = {}
_MOST_SHAPES = 1024
_KINDS = {name: number for number, name in enumerate(DECLARABLE)}


def shape_of(what: str, arguments: Mapping[str, object]) -> Shape:
    """Return `name: type` checked, as all users of it need it. Raises UsageError as `check_arguments`."""
    key = tuple(chain.from_iterable(arguments.items()))
    with suppress(KeyError, TypeError):  # an enum's names are not hashable, and what is wrong may be anything
        return known_shapes[key]
    specs = check_arguments(what, arguments)
    pairs = tuple([spec[:2] for spec in specs])
    kinds = bytes([_KINDS[spec.type] for spec in specs])
    shape = Shape(pairs, tuple(map(_converter, specs)), kinds, canonical_arguments(specs), specs)
    if len(known_shapes) >= _MOST_SHAPES:
        known_shapes.clear()
    with suppress(TypeError):
        known_shapes[key] = shape
    return shape


def _converter(argument: ArgumentSpec) -> Converter:
    if argument.type == "enum":
        return dict(argument.numbers or {})
    if argument.type == "json":
        from usdtkit.probes.encoding import json_encoder

        return json_encoder(argument.limit)
    return None


def check_arguments(what: str, arguments: Mapping[str, object]) -> tuple[ArgumentSpec, ...]:
    """Return the specs of `name: type` if the types exist and their operands fit, else raise UsageError."""
    checked = []
    operands = 0
    for name, kind in arguments.items():
        # Most are right; those that are not are asked again, for the reason.
        if not isinstance(name, str) or len(name) > MAX_NAME or not _ARGUMENT_NAME.match(name):
            check_name(f"an argument of {what}", name, hyphen=False)
        spec = _spec(what, name, kind)
        operands += len(DECLARABLE[spec.type])
        checked.append(spec)
    if operands > MAX_OPERANDS:
        raise UsageError(
            f"{what} needs {operands} operands, at most {MAX_OPERANDS} are possible (bytes counts as two)",
            hint="split it into two probes that share an id",
        )
    return tuple(checked)


def _spec(what: str, name: str, kind: object) -> ArgumentSpec:
    if isinstance(kind, str) and kind in DECLARABLE and kind not in ("enum", "json"):
        return ArgumentSpec(name, kind)
    if kind == "json":
        return ArgumentSpec(name, "json", limit=JSON_LIMIT)
    if isinstance(kind, ArgumentSpec):
        return kind._replace(name=name)
    if isinstance(kind, type) and isinstance(members := getattr(kind, "__members__", None), Mapping):
        return _of_enum(f"argument {name!r} of {what}", name, members)
    if kind == "enum":
        raise UsageError(
            f"argument {name!r} of {what} is an enum without names",
            hint='argument("enum", names=("new", "paid")), or a subclass of enum.Enum',
        )
    raise _unknown_type(f"argument {name!r} of {what}", kind)


def _of_enum(what: str, name: str, members: Mapping[str, Any]) -> ArgumentSpec:
    """An enum.Enum: numbered by its values where all are integers, else in order. Calls take members, names, values."""
    values = [member.value for member in members.values()]
    by_value = all(map(_is_integer, values))
    names = dict(zip(members, values, strict=True)) if by_value else {each: at for at, each in enumerate(members)}
    numbered = _enum_names(what, names)
    numbers: dict[object, int] = {}
    for each, number in numbered:
        numbers[each] = numbers[members[each]] = number
    for each, number in numbered:
        # A value that is unhashable, or the name of another member, is not a way to say it.
        if getattr(type(members[each].value), "__hash__", None) is not None:
            numbers.setdefault(members[each].value, number)
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
    return UsageError(f"{what} has the unknown type {kind!r}", hint=f"one of {', '.join(DECLARABLE)}, or an enum.Enum")
