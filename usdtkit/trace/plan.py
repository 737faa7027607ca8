"""What a session will attach to, and what became of every hit: the plan before, the account after.

Input: the hooks and resolved places of `session`. Output: sites with cookies for `bpf.links`, and the values that a
session shows of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usdtkit.bpf import program as programs
from usdtkit.bpf.links import Site
from usdtkit.bpf.operands import pack_operands
from usdtkit.records import dataclass
from usdtkit.trace.specs import Resolved

if TYPE_CHECKING:
    from usdtkit.trace.stacks import Stacks


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of every hit.

    `hits` that reached a hook (of a pair: that were completed), events `received` and `lost` for want of room in the
    ring buffer; entries that a full table did not take; ends without a start; starts dropped because too many were
    open in one thread (`overflow`), or because their end cannot come any more (`dropped`: the thread or process has
    ended, the call was left by an exception or longjmp, the key has started again); values that could not be read;
    hits of which no stack could be taken, for want of room or because the process is a 32-bit one.
    """

    hits: int
    received: int
    lost: int
    full: int
    unmatched: int
    overflow: int
    dropped: int
    unreadable: int
    no_stack: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One site of a session: `kind` is usdt, entry or return; offsets are the file's; no `pids` means every process."""

    kind: str
    name: str
    path: str
    file_offset: int
    semaphore_offset: int
    pids: tuple[int, ...]


@dataclass
class Plan:
    """Where everything goes: sites by (hook, file), and the entries of the map `operands`."""

    sites: dict[tuple[int, str], list[Site]]
    operands: list[bytes]
    probe_names: list[str]


def make_plan(hooks: list[programs.Hook], places: list[Resolved], stacks: Stacks | None) -> Plan:
    """The plan of a session's hooks, each with its places; with `stacks`, functions' entries are marked for them."""
    sites: dict[tuple[int, str], list[Site]] = {}
    lists: dict[tuple[bytes, ...], int] = {}
    names: dict[str, int] = {}
    for hook, resolved in zip(hooks, places, strict=True):
        for place in resolved.places:
            packed = tuple(pack_operands(place.operands, hook.machine))
            name, operands = names.setdefault(place.name, len(names)), lists.setdefault(packed, len(lists))
            at_entry = stacks is not None and hook.kind == "usdt" and stacks.begins_function(place)
            cookie = programs.cookie(name, operands, at_entry)
            site = Site(place.file_offset, place.semaphore_offset, cookie)
            sites.setdefault((hook.index, place.path), []).append(site)
    return Plan(sites, [entry for entries in lists for entry in entries], list(names))
