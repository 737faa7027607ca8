"""Where a jump out of a function leads: a part of it that was moved away, or a function that it ends in.

Input `usdtkit.elf.image.Image` and its `CallFrames`; used by `usdtkit.elf.exits`. Symbols are found by address in an
index that the shim makes, because going through the 150,000 symbols of a large program in Python takes longer than a
tool's start. `usdtkit.elf.relocations` finds what the loader writes into tables of pointers.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import pairwise

from usdtkit._ffi import ffi, lib
from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.constants import SHF_EXECINSTR, SHT_NOBITS
from usdtkit.elf.flows import INDIRECT, SLOT
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image, Section
from usdtkit.elf.relocations import Relocations
from usdtkit.elf.tables import Table, dynamic_table, fullest_table
from usdtkit.errors import ElfError, UsdtkitError
from usdtkit.records import NamedTuple

_ENCLOSING = 16  # symbols before the nearest that are tried for one that contains an address
_LONGEST_STUB = 32
# Types of relocations by machine, for an entry with the address of a symbol.
_SYMBOLIC = {"x86_64": (6, 7), "aarch64": (1025, 1026)}
_INDIRECT_RELATIVE = {"x86_64": 37, "aarch64": 1032}  # the address that an indirect function's resolver gives
# Other libraries replace these functions: a call of libc's may end in jemalloc.
_REPLACED = frozenset(
    (
        *("malloc", "calloc", "realloc", "free", "reallocarray", "memalign", "aligned_alloc", "posix_memalign"),
        *("valloc", "pvalloc", "cfree", "malloc_usable_size"),
    )
)


class Destination(NamedTuple):
    """Where a jump leads. With `start` it is a function of this file, of `size` bytes (0 if that is unknown)."""

    name: str
    start: int = 0
    size: int = 0


class Callees:
    """Finds the functions of one file by address. Tables are read when they are first needed."""

    def __init__(self, image: Image, frames: CallFrames) -> None:
        self._image = image
        self._frames = frames
        self.is_go = is_go(image)
        self._table: Table | None = None
        self._addresses: array[int] | None = None
        self._indexes: array[int] = array("I")
        self._relocations = Relocations(image)
        self._stubs = [s for s in image.sections if s.name.startswith((".plt", ".iplt")) and s.flags & SHF_EXECINSTR]
        self._offset_tables = [s for s in image.sections if s.name.startswith(".got")]

    def fragment(self, address: int, conditional: bool) -> tuple[int, int] | None:
        """Return (start, size) of the part of a function that a jump leads to, None if it leads to another function.

        Compilers move code that seldom runs to another place. Such a part has a symbol whose name says what it is, or
        only call frame information of its own. That information often says that the stack is not as at an entry.
        """
        if _within(self._stubs, address) is not None:
            return None
        symbol = self._covering(address)
        if symbol is not None:
            name, start, size = symbol
            return (start, size) if ".cold" in name or ".warm" in name else None
        described = self._frames.covering(address)
        if described is None:
            return None
        if address != described.start or conditional or self._frames.rule(address) != self._frames.at_entry:
            return described.start, described.size
        return None

    def destination(self, address: int) -> Destination | None:
        """Return the function at an address; None in the middle of a function, or if there is none."""
        if (stub := _within(self._stubs, address)) is not None:
            return self._of_stub(address, stub) or Destination("a function of another library")
        symbol = self._covering(address)
        if symbol is not None:
            return Destination(*symbol) if symbol[1] == address else None
        described = self._frames.covering(address)
        if described is not None and described.start == address:
            return Destination(f"a function without a name at {address:#x}", address, described.size)
        return None

    def of_slot(self, address: int) -> Destination | None:
        """Return the function whose address the loader puts at `address`, if that is in a global offset table."""
        if _within(self._offset_tables, address) is None:
            return None
        found = self._relocations.of(address)
        if found is None:
            return None
        kind, index, addend = found
        if kind == self._relocations.relative_type:
            return self.destination(addend)
        if kind == _INDIRECT_RELATIVE.get(self._image.machine):
            resolver = self._covering(addend)
            return Destination(resolver[0] if resolver is not None else "an indirect function")
        if kind not in _SYMBOLIC.get(self._image.machine, ()) or self._dynamic is None:
            return None
        try:
            symbol = self._dynamic[index]
        except struct.error:
            return None
        name = self._dynamic.name(symbol.at)
        # If another library or the program may define the symbol as well, theirs counts. In C++ these are weak ones.
        replaced = name in _REPLACED or (name.startswith("_Z") and symbol.is_weak)
        if symbol.is_function and symbol.is_defined and not replaced:
            return Destination(name, symbol.value, symbol.size)
        return Destination(name)

    def around(self, address: int) -> Destination | None:
        """Return the function that an address lies in; without a symbol, the range with call frame information."""
        symbol = self._covering(address)
        if symbol is not None and (symbol[2] or symbol[1] == address):
            return Destination(*symbol)
        described = self._frames.covering(address)
        if described is None:
            return None
        return Destination(f"a function without a name at {described.start:#x}", described.start, described.size)

    def pointer(self, address: int) -> int:
        """Return the address of a function that the file, or the loader, puts at this address of data; 0 for none."""
        return self._relocations.pointer(address)

    def _of_stub(self, address: int, section: Section) -> Destination | None:
        """The function that a stub of a procedure linkage table jumps to."""
        size = min(_LONGEST_STUB, section.address + section.size - address)
        try:
            code = self._image.read(self._image.file_offset(address), size)
        except ElfError:
            return None
        if self._image.machine == "aarch64":
            slot = _slot_of_aarch64(code, address)
            return self.of_slot(slot) if slot else None
        begins, flows, sweep = ffi.new("uint8_t[]", size), ffi.new("usdtkit_flow[]", 4), ffi.new("usdtkit_sweep *")
        lib.usdtkit_sweep_x86_64(code, size, begins, flows, 4, sweep)
        if sweep.flows and flows[0].kind == INDIRECT and flows[0].flags & SLOT:
            return self.of_slot(address + flows[0].target)
        return None

    def _covering(self, address: int) -> tuple[str, int, int] | None:
        """(name, start, size) of the function symbol that covers an address, the one that starts there if there is."""
        starts = self._index()
        table = self._table
        if table is None:
            return None
        exact = bisect_left(starts, address)
        if exact < len(starts) and starts[exact] == address:
            symbol = table[self._indexes[exact]]
            return table.name(symbol.at), symbol.value, symbol.size
        nearest = bisect_right(starts, address) - 1
        for at in range(nearest, max(-1, nearest - _ENCLOSING), -1):
            symbol = table[self._indexes[at]]
            if address < symbol.value + symbol.size:
                return table.name(symbol.at), symbol.value, symbol.size
        return None

    def _index(self) -> array[int]:
        """The addresses of all functions, in order."""
        if self._addresses is None:
            self._addresses = array("Q")
            if not self._image.little_endian or self._image.bits != 64:
                return self._addresses
            try:
                self._table = fullest_table(self._image)
            except UsdtkitError:  # a damaged table counts as none
                return self._addresses
            if self._table is not None:
                count = len(self._table)
                addresses, indexes = array("Q", bytes(8 * count)), array("I", bytes(4 * count))
                found = lib.usdtkit_functions_by_address(
                    self._table.data,
                    count,
                    ffi.from_buffer("uint64_t[]", addresses),
                    ffi.from_buffer("uint32_t[]", indexes),
                )
                self._addresses, self._indexes = addresses[: max(0, found)], indexes
        return self._addresses

    @cached_property
    def _dynamic(self) -> Table | None:
        """The table to which relocations refer; a damaged one counts as none."""
        try:
            return dynamic_table(self._image)
        except UsdtkitError:
            return None


def _within(sections: list[Section], address: int) -> Section | None:
    for section in sections:
        if section.type != SHT_NOBITS and 0 <= address - section.address < section.size:
            return section
    return None


def _slot_of_aarch64(code: bytes, address: int) -> int:
    """The address that a stub reads: `adrp x16, page; ldr x17, [x16, offset]`, after an optional `bti c`; else 0."""
    words: tuple[int, ...] = struct.unpack(f"<{len(code) // 4}I", code[: len(code) // 4 * 4])
    for at, (first, second) in enumerate(pairwise(words)):
        if first & 0x9F00001F == 0x90000010 and second & 0xFFC003FF == 0xF9400211:
            pages = (first >> 5 & 0x7FFFF) << 2 | (first >> 29 & 3)
            pages -= (pages & 1 << 20) << 1
            page: int = (address + 4 * at & ~0xFFF) + (pages << 12)
            return page + (second >> 10 & 0xFFF) * 8
    return 0
