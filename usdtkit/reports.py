"""What a process that uses usdtkit tells of its own probes: how often they have fired, and what has been wrapped.

Input: the memory of a process, where native/probe_report.c keeps its report; the process is not stopped and does not
notice. Output: plain data. Another user's process may have any bytes there, so sizes are bounded and checked, and
nothing of a text is to be trusted: who prints it passes it through `output.text`.
"""

# ruff: noqa: PTH123 it is read of thousands of processes, where pathlib's cost shows

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from usdtkit.errors import PrivilegeError
from usdtkit.maps import Identity, Mapping, executable_mappings, maps_of, parse
from usdtkit.records import NamedTuple

# As native/probe_report.c has them.
NAME = "usdtkit-report"
MAGIC, VERSION = b"usdtkit\0", 2
AREA = struct.Struct("<8sIIQ")
ENTRY = struct.Struct("<IIQQQQQ")
PROBE, ENGAGEMENT = 1, 2
HOOKS = {1: False, 2: True}
AREA_SIZE, MOST_AREAS = 1 << 16, 16

_WAITS = "not imported yet"  # as usdtkit.instrument.engagement has it

_LINE = b" /memfd:" + NAME.encode() + b" (deleted)\n"


class ProbeReport(NamedTuple):
    """One loaded probe of a process, and the calls of it that this process has fired, and could not fire, so far.

    `path`, `identity` and `offset` say which byte of which mapped file is its site; they are "", None and 0 where the
    address is in none. `armed` says whether a breakpoint is there now, and `hooked`, of a probe that is called by hooks
    of an integration, whether these are set: that is so up to 50 ms after it was armed. It is None of all others.
    """

    provider: str
    name: str
    fired: int
    dropped: int
    armed: bool
    hooked: bool | None
    path: str
    identity: Identity | None
    offset: int

    @property
    def spec(self) -> str:
        """PROVIDER:PROBE."""
        return f"{self.provider}:{self.name}"


class EngagementReport(NamedTuple):
    """What an integration has wrapped of a library, and why nothing, or nothing more."""

    integration: str
    library: str
    wrapped: tuple[str, ...]
    reason: str

    @property
    def waits(self) -> bool:
        """Whether the program has not imported the library so far."""
        return self.reason == _WAITS and not self.wrapped

    def __str__(self) -> str:
        what = ", ".join(self.wrapped) or "nothing"
        return f"{self.library}: {what}" + (f" ({self.reason})" if self.reason else "")


class Report(NamedTuple):
    """All that a process tells. Both are empty if it does not use usdtkit."""

    probes: tuple[ProbeReport, ...] = ()
    engagements: tuple[EngagementReport, ...] = ()


def report_of(pid: int) -> Report:
    """Read the report of a process, which may be in any container.

    Raises PrivilegeError if its memory may not be read, and OSError if it has ended.
    """
    try:
        maps = maps_of(pid)
        starts = list(_areas(maps))
        if not starts:
            return Report()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            entries = [entry for start in starts for entry in _entries(_read(memory.fileno(), start, AREA_SIZE))]
            code = list(executable_mappings(maps))
            probes = [_probe(memory.fileno(), code, *entry[1:]) for entry in entries if entry[0] == PROBE]
    except PermissionError as error:
        raise PrivilegeError(
            f"the memory of process {pid} may not be read", hint="run as root, or as the user of that process"
        ) from error
    return Report(tuple(filter(None, probes)), tuple(_engagements(entries)))


def _areas(maps: bytes) -> Iterator[int]:
    """Where areas begin in memory, in the order of their making, which is that of their inodes."""
    found: list[tuple[int, int]] = []
    at = maps.find(_LINE)
    while at >= 0 and len(found) < MOST_AREAS:
        mapping = parse(maps[maps.rfind(b"\n", 0, at) + 1 : at + len(_LINE) - 1])
        if mapping.offset == 0:
            found.append((mapping.identity.inode, mapping.start))
        at = maps.find(_LINE, at + 1)
    return (start for _, start in sorted(found))


def _read(memory: int, address: int, size: int) -> bytes:
    try:
        return os.pread(memory, size, address)
    except (OSError, OverflowError):  # not mapped, or mapped without permission to read
        return b""


_Entry = tuple[int, int, int, int, int, int, list[str]]


def _entries(area: bytes) -> Iterator[_Entry]:
    """(kind, site, pristine, fired, dropped, hooks, texts) of each complete entry."""
    if len(area) < AREA.size:
        return
    magic, version, *_ = AREA.unpack_from(area)
    at = AREA.size
    while (magic, version) == (MAGIC, VERSION) and at + ENTRY.size <= len(area):
        size, kind, *numbers = ENTRY.unpack_from(area, at)
        if size < ENTRY.size or size % 8 or at + size > len(area):
            return
        texts = area[at + ENTRY.size : at + size].decode("utf-8", "replace").split("\0")
        yield kind, *numbers, texts
        at += size


def _probe(
    memory: int, code: list[Mapping], site: int, pristine: int, fired: int, dropped: int, hooks: int, texts: list[str]
) -> ProbeReport | None:
    if not all(texts[:2]) or len(texts) < 2:
        return None
    mapping = next((mapping for mapping in code if mapping.start <= site < mapping.end), None)
    now = _read(memory, site, 1)
    armed = mapping is not None and len(now) == 1 and now[0] != pristine
    if mapping is None or not mapping.identity.inode:
        return ProbeReport(texts[0], texts[1], fired, dropped, armed, HOOKS.get(hooks), "", None, 0)
    offset = site - mapping.start + mapping.offset
    where = mapping.name, mapping.identity, offset
    return ProbeReport(texts[0], texts[1], fired, dropped, armed, HOOKS.get(hooks), *where)


def _engagements(entries: list[_Entry]) -> list[EngagementReport]:
    """The latest entry of each library, in the order in which the libraries came."""
    latest: dict[tuple[str, str], EngagementReport] = {}
    for kind, *_, texts in entries:
        if kind == ENGAGEMENT and len(texts) >= 3:
            integration, library, reason, *wrapped = texts
            latest[integration, library] = EngagementReport(integration, library, tuple(filter(None, wrapped)), reason)
    return list(latest.values())
