"""What the walk along stacks needs to know, written to the maps of unwind.c.

Input: the maps of a session, and the processes that it traces. Output: entries of these maps. Used by `running`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress

from usdtkit.bpf.walker import INSTANCES, PROCESSES
from usdtkit.errors import UnsupportedError
from usdtkit.kernel.maps import Map
from usdtkit.kernel.taskmaps import places_of

MAPPINGS = 256
NOWHERE = (1 << 63) - 1
_HEAD = struct.Struct("<QIIQII")  # struct process of unwind.c, without its mappings
_MAPPING = struct.Struct("<QQQII")
_INSTANCES = (
    "task_struct.utask",
    "uprobe_task.return_instances",
    "return_instance.stack",
    "return_instance.orig_ret_vaddr",
    "return_instance.next",
)


class Unwinder:
    """Fills the maps of one session."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        """Write what all processes have in common."""
        # Of a process that is not known, all memory may be code without tables.
        everything = _MAPPING.pack(0, 0, NOWHERE, 0, 0)
        nothing = _MAPPING.pack(NOWHERE, 0, 0, 0, 0)
        maps[PROCESSES][bytes(4)] = _HEAD.pack(0, 1, 0, 0, 0, 0) + everything + nothing * (MAPPINGS - 1)
        with suppress(UnsupportedError):  # then the addresses that return probes replace stay unknown
            places = places_of(_INSTANCES)
            maps[INSTANCES][bytes(4)] = struct.pack("<5Q", *(places[name] for name in _INSTANCES))
