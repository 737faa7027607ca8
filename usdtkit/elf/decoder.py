"""Code of an ELF file → the instructions in it that change the flow of control, and where all its instructions begin.

Input `usdtkit.elf.image.Image` and ranges of virtual addresses, output `usdtkit.elf.flows.Code`; used by
`usdtkit.elf.exits`. The decoder itself is in the shim (native/decode.h), and knows x86-64 and aarch64.
"""

from __future__ import annotations

import struct

from usdtkit._ffi import ffi, lib
from usdtkit.elf.flows import RUNS_ON, UNDECODABLE, Code, Flow
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError

_FLOW = struct.Struct("<IBBBBq")
_FIRST_CAPACITY = 1024  # flows
_LARGEST_FUNCTION = 4 << 20
# Why the shim's decoder stops, as native/decode.h has it.
_PROBLEMS = {1: UNDECODABLE, 2: "it has a branch (prefix 66) that differs between processors"}
_FULL = 3


class Decoder:
    """Decodes ranges of one open file. `is_supported` says whether the file is for a machine that it knows."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._sweep = {"x86_64": lib.usdtkit_sweep_x86_64, "aarch64": lib.usdtkit_sweep_aarch64}.get(image.machine)
        self.is_supported = self._sweep is not None and image.bits == 64
        self._flows = ffi.new("usdtkit_flow[]", _FIRST_CAPACITY)

    def decode(self, start: int, size: int) -> Code:
        """Decode `size` bytes at the virtual address `start`, from one end to the other."""
        if not 0 < size <= _LARGEST_FUNCTION:
            return Code(start, b"", [], "its size is not known" if size <= 0 else "it is too large")
        try:
            code = self._image.read(self._image.file_offset(start), size)
        except ElfError:
            return Code(start, b"", [], "its code lies beyond the end of the file")
        begins, sweep = ffi.new("uint8_t[]", size), ffi.new("usdtkit_sweep *")
        while True:
            assert self._sweep is not None
            self._sweep(code, size, begins, self._flows, len(self._flows), sweep)
            if sweep.end != _FULL:
                break
            self._flows = ffi.new("usdtkit_flow[]", 4 * len(self._flows))
        flows = [
            Flow(start + at, length, kind, condition, flags, start + target)
            for at, length, kind, condition, flags, target in _FLOW.iter_unpack(
                ffi.buffer(self._flows, sweep.flows * _FLOW.size)
            )
        ]
        problem = _PROBLEMS[sweep.end] if sweep.end else ""
        if not problem and sweep.falls_through:
            problem = RUNS_ON
        return Code(start, bytes(ffi.buffer(begins, size)), flows, problem)
