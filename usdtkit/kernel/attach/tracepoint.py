"""A tracepoint of the kernel, as a raw one: the program sees the arguments of the tracepoint, and no record is made.

Input: a program, and the tracepoint. Output: a descriptor.
"""

from __future__ import annotations

from usdtkit._ffi import check, lib
from usdtkit.bpf.uapi import PROG_TYPE_RAW_TRACEPOINT
from usdtkit.kernel.attach.sites import Attached
from usdtkit.kernel.load import Loaded
from usdtkit.model import Tracepoint


class RawTracepoint:
    """One program at one tracepoint."""

    def __init__(self, loaded: Loaded, program: str, tracepoint: Tracepoint) -> None:
        self._loaded = loaded
        self._program = program
        self._tracepoint = tracepoint

    def load(self) -> None:
        """Load the program; `attach` does it too, and finds it loaded then."""
        self._loaded.program(self._program, type=PROG_TYPE_RAW_TRACEPOINT)

    def attach(self, attached: Attached) -> None:
        """Attach, and add the descriptor to what is `attached`."""
        program = self._loaded.program(self._program, type=PROG_TYPE_RAW_TRACEPOINT)
        name = self._tracepoint.name
        descriptor = lib.usdtkit_raw_tracepoint_open(program, name.encode())
        attached.descriptors.append(check(descriptor, f"attaching to the kernel's {name}"))
