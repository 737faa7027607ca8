"""What may be declared: names, argument types, limits. Keyword arguments of `Provider.probe` → checked tuples.

Pure. `provider` calls it, `image` reads its table of types; native/probe.c converts by the same type names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from usdtkit.errors import UsageError

# Operands of one argument: bytes, negative where signed. A f64 travels as its IEEE bits; `bytes` is pointer and length.
TYPES: dict[str, tuple[int, ...]] = {
    "u8": (1,),
    "u16": (2,),
    "u32": (4,),
    "u64": (8,),
    "i8": (-1,),
    "i16": (-2,),
    "i32": (-4,),
    "i64": (-8,),
    "bool": (1,),
    "f64": (8,),
    "str": (8,),
    "bytes": (8, 8),
}

# Tracers read no more than twelve: libbpf, sdt.h and bpftrace's arg0…arg11.
MAX_OPERANDS = 12
# perf's event names end at 64, and a file name has to hold the provider's with 20 more.
MAX_NAME = 64
MAX_DOC = 4096

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_ARGUMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


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


def check_doc(what: str, doc: object) -> str:
    """Return `doc` if it can stand in the file's metadata, else raise UsageError."""
    if not isinstance(doc, str):
        raise UsageError(f"the doc of {what} must be a str, not {type(doc).__name__}")
    if len(doc) > MAX_DOC:
        raise UsageError(f"the doc of {what} has {len(doc)} characters, at most {MAX_DOC} are possible")
    try:
        doc.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the doc of {what} is not valid Unicode: {error.reason}") from error
    return doc


def check_arguments(what: str, arguments: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return (name, type) of each argument if the types exist and their operands fit, else raise UsageError."""
    checked = []
    for name, kind in arguments.items():
        check_name(f"an argument of {what}", name, hyphen=False)
        if not isinstance(kind, str) or kind not in TYPES:
            raise UsageError(
                f"argument {name!r} of {what} has the unknown type {kind!r}", hint=f"one of {', '.join(TYPES)}"
            )
        checked.append((name, kind))
    operands = sum(len(TYPES[kind]) for _, kind in checked)
    if operands > MAX_OPERANDS:
        raise UsageError(
            f"{what} needs {operands} operands, at most {MAX_OPERANDS} are possible (bytes counts as two)",
            hint="split it into two probes that share an id",
        )
    return tuple(checked)
