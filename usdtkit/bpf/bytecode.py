"""Compiled programs: as objects, and as the JSON that the cache, bundles and the compiler's child process have.

Made by `translator` and `compiler`, read by `usdtkit.kernel.load`.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64  # importing base64 takes longer
from collections.abc import Sequence
from typing import Any

from usdtkit.bpf.uapi import INSTRUCTION, LOAD_IMMEDIATE, PSEUDO_MAP_FD
from usdtkit.records import dataclass

_NUMBERS = ("type", "key", "value", "entries", "flags", "inner")  # of a map in JSON


@dataclass(frozen=True, slots=True)
class MapDescription:
    """A map as bpf(2) describes it: sizes in bytes, `type` and `flags` as in linux/bpf.h.

    The values of an array of maps are arrays with one value of `inner` bytes.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    inner: int = 0


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Compiled programs by name, in 8-byte instructions. References to maps are indexes into `maps`.

    `bcc_version` is "" where `translator` has made them.
    """

    maps: tuple[MapDescription, ...]
    programs: dict[str, bytes]
    bcc_version: str


def joined(first: Bytecode, second: Bytecode) -> Bytecode:
    """The programs of both. A map that both name is one map, as `second` describes it."""
    described = {map.name: map for map in (*first.maps, *second.maps)}
    numbers = {name: number for number, name in enumerate(described)}
    programs = {
        name: _renumbered(code, [numbers[map.name] for map in each.maps])
        for each in (first, second)
        for name, code in each.programs.items()
    }
    return Bytecode(tuple(described.values()), programs, first.bcc_version)


def _renumbered(code: bytes, numbers: Sequence[int]) -> bytes:
    """A program that names its maps by other numbers."""
    changed = bytearray(code)
    for index, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code)):
        if opcode == LOAD_IMMEDIATE and registers >> 4 == PSEUDO_MAP_FD:
            struct.pack_into("<i", changed, 8 * index + 4, numbers[immediate])
    return bytes(changed)


def encode(bytecode: Bytecode) -> bytes:
    """The JSON of compiled programs, as bcc's child process writes it."""
    import json  # here, because it takes a millisecond, and neither help nor --explain needs it

    maps = [
        {
            "name": map.name,
            "type": map.type,
            "key": map.key_size,
            "value": map.value_size,
            "entries": map.max_entries,
            "flags": map.flags,
            "inner": map.inner,
        }
        for map in bytecode.maps
    ]
    programs = {name: b2a_base64(code, newline=False).decode() for name, code in bytecode.programs.items()}
    return json.dumps({"bcc": bytecode.bcc_version, "maps": maps, "programs": programs}).encode()


def decode(stored: bytes) -> Bytecode | None:
    """Compiled programs from their JSON, or None where the JSON is something else."""
    import json

    try:
        answer: dict[str, Any] = json.loads(stored)
        return Bytecode(
            maps=tuple(
                MapDescription(
                    _name(m["name"]), *(_u32(m[of]) for of in ("type", "key", "value", "entries", "flags", "inner"))
                )
                for m in answer["maps"]
            ),
            programs={_name(name): a2b_base64(code) for name, code in answer["programs"].items()},
            bcc_version=str(answer["bcc"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _name(name: str) -> str:
    if not name.isascii() or not name.isidentifier():
        raise ValueError(name)
    return name


def _u32(number: int) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**32:
        raise ValueError(number)
    return number
