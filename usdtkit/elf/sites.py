"""An address of an ELF file → what a probe there costs, and whether a probe may be put there at all.

Input `usdtkit.elf.image.Image`; used by `usdtkit.trace`, `usdtkit.language` and `usdtkit.cli.list`, and by
`usdtkit.trace.symbols`, which asks whether stacks that are taken in a function will have its caller. Uses
`usdtkit.elf.instructions`, which knows what the kernel does with an instruction, `usdtkit.elf.exits`, which knows where
instructions begin, `usdtkit.elf.symbols` and `usdtkit.elf.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.elf.image import Image
from usdtkit.elf.instructions import LONGEST, Cost, cost_of
from usdtkit.elf.tables import all_tables
from usdtkit.errors import UsageError
from usdtkit.model import Function


def cost(image: Image, file_offset: int) -> Cost:
    """Return what a hit of a probe on the instruction at a file offset costs; "unknown" if it is not x86 code."""
    code = image.read(file_offset, max(0, min(LONGEST, image.size - file_offset)))
    return cost_of(code, image.machine)


def check(image: Image, *addresses: int) -> None:
    """Raise an error if no probe may be put at one of the virtual addresses.

    ElfError if it lies outside of the file's code. UsageError if it lies in a function but is not the first byte
    of an instruction, or if the kernel refuses the instruction or mistakes it for another. In a function that cannot
    be decoded, the USDT sites are taken for first bytes of instructions.
    """
    from usdtkit.elf.exits import ExitFinder  # lazy: it loads the compiled shim, which `cost` does not need

    finder = ExitFinder(image)
    for address in addresses:
        _check_instruction(image, address, f"{image.path}: {address:#x}")
        around = finder.around(address)
        name, start, size = around if around is not None else _function_around(image, address) or ("", address, 0)
        if address == start:
            continue
        starts = finder.starts_of(start, size)
        if starts is not None and address - start in starts:
            continue
        from usdtkit.elf.notes import sites_of  # lazy: only addresses inside of functions need the notes

        if starts is not None or address not in sites_of(image):
            where = f"{image.path}: {address:#x} lies inside of {name}, {address - start} bytes from its start"
            raise _within_instruction(f"{where}, and", name, address - start, starts)


def check_offset(image: Image, function: Function, offset: int) -> None:
    """Raise an error if no probe may be put `offset` bytes from the start of a function of this file.

    UsageError if no instruction begins there, with the two nearest offsets at which one does, or if the kernel
    puts no probe on the instruction.
    """
    from usdtkit.elf.exits import ExitFinder  # lazy, as above

    name = function.demangled or function.name
    if not 0 <= offset < max(function.size, 1):
        raise UsageError(f"{name} ends before {offset:#x}", hint=f"it has {function.size} bytes")
    starts = ExitFinder(image).starts(function)
    if offset and (starts is None or offset not in starts):
        raise _within_instruction(f"{name}+{offset}", name, offset, starts)
    _check_instruction(image, function.address + offset, f"{name}+{offset}")


def _check_instruction(image: Image, address: int, where: str) -> None:
    """UsageError if the kernel would refuse or mistake the instruction, or let no signal interrupt it."""
    probe_cost = cost(image, image.file_offset(address))
    if probe_cost in ("refused", "mistaken"):
        why = "puts no probe on" if probe_cost == "refused" else "would execute something else in place of"
        raise UsageError(f"{where}: the kernel {why} an instruction with this prefix", hint="probe the caller")
    if probe_cost == "held":
        raise UsageError(
            f"{where} is a system call: a probe there would keep signals from interrupting it",
            hint="probe the function that makes the call, at its entry",
        )


def _within_instruction(where: str, name: str, offset: int, starts: Sequence[int] | None) -> UsageError:
    if starts is None:
        return UsageError(
            f"{where} may be in the middle of an instruction, because the code of {name} cannot be decoded: a probe "
            "there could change what the program does",
            hint=f"probe the entry of {name}, or a USDT probe",
        )
    nearest = [*[at for at in starts if at < offset][-1:], *[at for at in starts if at > offset][:1]]
    around = " and ".join(f"{name}+{at}" for at in nearest)
    return UsageError(
        f"{where} is in the middle of an instruction, where a probe would change what the program does: the "
        f"instructions next to it begin at {around}",
        hint="choose one of these",
    )


def _function_around(image: Image, address: int) -> tuple[str, int, int] | None:
    """Name, start and size of the function in whose middle the address lies; None at a function's start, or if no
    symbol of the file or its debug data covers the address."""
    inside = None
    for table in all_tables(image):
        for symbol in table:
            if symbol.is_function and symbol.is_defined and symbol.value <= address < symbol.value + symbol.size:
                if symbol.value == address:
                    return None
                inside = table.name(symbol.at), symbol.value, symbol.size
    return inside
