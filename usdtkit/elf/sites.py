"""An address of an ELF file → what a probe there costs, and whether it must not be there at all.

Input `usdtkit.elf.image.Image`; used by `usdtkit.targets` and `usdtkit.cli.list`. A uprobe replaces the first byte of
an instruction by a breakpoint. Some instructions the kernel then emulates (0.5 µs a hit in all); the others it executes
in another place, one step, which takes a second trap (7 to 17 µs); a few it refuses, some of them only when a process
maps the file, and then in silence. No disassembler is needed to tell which: the first bytes say it.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.elf.image import PT_NOTE, Image
from usdtkit.elf.notes import sites_of
from usdtkit.elf.tables import all_tables
from usdtkit.errors import ElfError, UsageError

Cost = Literal["emulated", "stepped", "refused", "unknown"]

_LONGEST_INSTRUCTION = 15
# Prefixes with which the kernel takes no instruction: the segments ES, CS, SS, DS, and LOCK.
_REFUSED_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\xf0")
_PREFIXES = frozenset(b"\x66\x67\xf2\xf3\x64\x65") | _REFUSED_PREFIXES
_GO_SECTIONS = frozenset((".go.buildinfo", ".gopclntab", ".note.go.buildid", ".data.rel.ro.gopclntab"))


def cost(image: Image, file_offset: int) -> Cost:
    """What a hit of a probe on the instruction at `file_offset` costs; "unknown" where it is not x86's.

    As measured on Linux 6.18: emulated are pushes of a register, calls, jumps and nops. Older kernels step nops of more
    than one byte. `endbr64`, with which functions begin where control flow is protected, is stepped.
    """
    if image.machine not in ("x86_64", "i386"):
        return "unknown"
    code = image.read(file_offset, max(0, min(_LONGEST_INSTRUCTION, image.size - file_offset)))
    return _x86(code, image.bits == 64)


def check(image: Image, address: int) -> None:
    """Raise where no probe may be put at the virtual address `address`: ElfError outside of the file's code, UsageError
    in the middle of a function, which may be that of an instruction (a USDT site is a place of its own), and at an
    instruction that the kernel refuses."""
    where = f"{image.path}: {address:#x}"
    if cost(image, image.file_offset(address)) == "refused":
        raise UsageError(f"{where}: the kernel puts no probe on an instruction with this prefix", hint="try the caller")
    inside = _function_around(image, address)
    if inside is not None and address not in sites_of(image):
        name, start = inside
        raise UsageError(
            f"{where} lies inside of {name}, {address - start} bytes from its start, and may be in the middle of an "
            "instruction: a probe there would change what the program does",
            hint=f"probe the entry of {name}, or a USDT probe",
        )


def is_go(image: Image) -> bool:
    """Whether Go's linker made the file: it moves stacks, and a moved return address of a probe ends the program."""
    if any(section.name in _GO_SECTIONS for section in image.sections):
        return True
    for segment in image.segments if not image.sections else ():
        if segment.type == PT_NOTE:
            try:
                if any(owner == b"Go" for owner, _, _ in image.notes(image.read(segment.offset, segment.file_size))):
                    return True
            except ElfError:  # damaged notes say nothing of Go
                continue
    return False


def _x86(code: bytes, wide: bool) -> Cost:
    position = 0
    while position < len(code) and code[position] in _PREFIXES:
        position += 1
    prefixes, rest = code[:position], code[position:]
    if _REFUSED_PREFIXES & set(prefixes):
        return "refused"
    rex = rest[:1] if wide and rest and rest[0] & 0xF0 == 0x40 else b""
    rest = rest[len(rex) :]
    if not rest:
        return "stepped"
    first, two = rest[0], rest[:2]
    if first == 0x90:
        return "emulated"
    if 0x50 <= first <= 0x57:
        return "emulated" if not prefixes and rex in (b"", b"\x41") else "stepped"
    if first in (0xE8, 0xE9, 0xEB) or 0x70 <= first <= 0x7F or (first == 0x0F and two[1:] and two[1] & 0xF0 == 0x80):
        # with this prefix, the width of a jump differs between processors
        return "refused" if b"\x66" in prefixes else "emulated"
    if two == b"\x0f\x1f":
        return "emulated" if not prefixes else "stepped"
    return "stepped"


def _function_around(image: Image, address: int) -> tuple[str, int] | None:
    """Name and start of the function in whose middle the address is; None at a start, or where no symbol says."""
    inside = None
    for table in all_tables(image):
        for symbol in table:
            if symbol.is_function and symbol.is_defined and symbol.value <= address < symbol.value + symbol.size:
                if symbol.value == address:
                    return None
                inside = table.name(symbol.at), symbol.value
    return inside
