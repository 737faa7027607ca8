"""An address of an ELF file → what a probe there costs, and whether it must not be there at all.

Input `usdtkit.elf.image.Image`; used by `usdtkit.targets` and `usdtkit.cli.list`, and by `usdtkit.trace.symbols`, which
asks what stacks below a function will lack. Stands on `usdtkit.elf.instructions`, which knows what the kernel does with
an instruction.
"""

from __future__ import annotations

from usdtkit.elf.image import PT_NOTE, Image
from usdtkit.elf.instructions import LONGEST, Cost, cost_of
from usdtkit.elf.tables import all_tables
from usdtkit.errors import ElfError, UsageError

_PROLOGUE = 64
_SETS_FRAME_POINTER = b"\x48\x89\xe5"  # mov %rsp,%rbp
_GO_SECTIONS = frozenset((".go.buildinfo", ".gopclntab", ".note.go.buildid", ".data.rel.ro.gopclntab"))


def cost(image: Image, file_offset: int) -> Cost:
    """What a hit of a probe on the instruction at `file_offset` costs; "unknown" where it is not x86's."""
    code = image.read(file_offset, max(0, min(LONGEST, image.size - file_offset)))
    return cost_of(code, image.machine)


def check(image: Image, address: int) -> None:
    """Raise where no probe may be put at the virtual address `address`: ElfError outside of the file's code, UsageError
    in the middle of a function, which may be that of an instruction (a USDT site is a place of its own), and at an
    instruction that the kernel refuses, mistakes for another, or lets no signal interrupt."""
    where = f"{image.path}: {address:#x}"
    what = cost(image, image.file_offset(address))
    if what in ("refused", "mistaken"):
        why = "puts no probe on" if what == "refused" else "would execute something else in place of"
        raise UsageError(f"{where}: the kernel {why} an instruction with this prefix", hint="probe the caller")
    if what == "held":
        raise UsageError(
            f"{where} is a system call: with a probe there no signal could interrupt it",
            hint="probe the function that makes the call, at its entry",
        )
    from usdtkit.elf.notes import sites_of  # what asks whether a file is Go's does without

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
                if any(owner == b"Go" for owner, _, _ in image.notes(segment.offset, segment.file_size)):
                    return True
            except ElfError:  # damaged notes say nothing of Go
                continue
    return False


def keeps_frame_pointer(image: Image, function: str) -> bool | None:
    """Whether a function begins with its frame pointer, as far as there is a choice: on x86-64; None of no function."""
    from usdtkit.elf.symbols import functions  # what other questions do without

    found = functions(image, function)
    if not found:
        return None
    return image.machine != "x86_64" or _SETS_FRAME_POINTER in image.read(found[0].file_offset, _PROLOGUE)


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
