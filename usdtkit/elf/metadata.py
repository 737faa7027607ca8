"""Our own note in provider files. It holds as JSON what the USDT notes have no room for, and is written and read here.

`usdtkit.probes.image` encodes the declared probes of a provider. `usdtkit.elf.notes` decodes the content of a file,
which may be anything: content that is not exactly as specified raises a built-in exception. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.records import NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    class ArgumentDescription(Protocol):
        """What the note says of one argument. `limit` is in bytes; 0 means that there is none."""

        @property
        def name(self) -> str: ...
        @property
        def type(self) -> str: ...
        @property
        def unit(self) -> str: ...
        @property
        def doc(self) -> str: ...
        @property
        def names(self) -> Sequence[tuple[str, int]]: ...
        @property
        def limit(self) -> int: ...

    class ProbeDescription(Protocol):
        """What the note says of one probe."""

        @property
        def name(self) -> str: ...
        @property
        def doc(self) -> str: ...
        @property
        def stability(self) -> str: ...
        @property
        def arguments(self) -> Sequence[ArgumentDescription]: ...


SECTION, OWNER, TYPE, VERSION = ".note.usdtkit", "usdtkit", 1, 1
MAX_SIZE = 1 << 20
"""Bytes of the section. Larger metadata is neither written nor read."""

ERRORS = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What `decode` raises of content that is not as agreed."""

_MOST_NAMES = 256
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class Declared(NamedTuple):
    """The metadata of one probe, as read from a note: (name, type) of each argument, and `details`, what else it says
    of each.

    `details` has the keys unit, doc and names of `usdtkit.model.Argument`, as far as the note has them.
    """

    arguments: tuple[tuple[str, str], ...]
    details: tuple[dict[str, Any], ...]
    doc: str
    stability: str


def encode(provider: str, sdk: str, probes: Iterable[ProbeDescription]) -> bytes:
    """Return the description of the note: UTF-8 JSON. `sdk` is the version of usdtkit that writes it.

    Of each probe name, doc, stability and arguments; of each argument name, type, unit, doc, an enum's names and
    numbers, and a json's limit in bytes. What is empty is left out, except for the doc of a probe.
    """
    import json  # most applications find their file already written

    described = [
        {
            "name": probe.name,
            "doc": probe.doc,
            **({"stability": probe.stability} if probe.stability else {}),
            "arguments": [_describe(argument) for argument in probe.arguments],
        }
        for probe in probes
    ]
    content = {"version": VERSION, "sdk": sdk, "provider": provider, "probes": described}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _describe(argument: ArgumentDescription) -> dict[str, object]:
    details = {"unit": argument.unit, "doc": argument.doc, "names": dict(argument.names), "limit": argument.limit}
    return {"name": argument.name, "type": argument.type, **{key: value for key, value in details.items() if value}}


def decode(description: bytes) -> dict[tuple[str, str], Declared]:
    """Return the metadata of each (provider, probe) in a note. One of `ERRORS` is raised if it is not as agreed."""
    import json  # few files carry this note

    content: Any = json.loads(description.rstrip(b"\0").decode("utf-8"))
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']!r}")
    provider = _string(content["provider"])
    declared = {}
    for probe in content["probes"]:
        pairs = tuple((_string(argument["name"]), _string(argument["type"])) for argument in probe["arguments"])
        for name, kind in pairs:
            if not _NAME.fullmatch(name) or kind not in DECLARABLE:
                raise ValueError(f"argument {name!r} of type {kind!r}")
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError(f"two arguments of {probe['name']!r} with one name")
        details = tuple(_details(argument) for argument in probe["arguments"])
        doc, stability = _string(probe.get("doc", "")), _string(probe.get("stability", ""))
        declared[provider, _string(probe["name"])] = Declared(pairs, details, doc, stability)
    return declared


def _details(argument: Mapping[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = {key: _string(argument[key]) for key in ("unit", "doc") if key in argument}
    if names := argument.get("names"):
        if len(names) > _MOST_NAMES:
            raise ValueError(f"{len(names)} names of argument {argument['name']!r}")
        for number in names.values():
            if type(number) is not int or not -(2**31) <= number < 2**31:
                raise ValueError(f"{number!r} as the number of a name")
        details["names"] = tuple((_string(name), number) for name, number in names.items())
    return details


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
