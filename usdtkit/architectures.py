"""The architectures that usdtkit knows: what ELF files, uname and the dynamic loader's cache call each of them.

Read by `usdtkit.elf.image`, which names the machine of a file, by `usdtkit.elf.writer` and by `usdtkit.libraries`. How
an architecture passes arguments and spells operands is not here: `usdtkit.bpf` and `usdtkit.elf.arguments` know that.
No I/O.
"""

from __future__ import annotations

from usdtkit.records import NamedTuple


class Architecture(NamedTuple):
    """One architecture, as its ELF files show it.

    `machine` is what uname(2) calls it, `number` the e_machine of its files, `bits` the width of its pointers.
    `cache_flags` mark its libraries in glibc's ld.so.cache: 3 for ELF with libc 6, and the ABI in the second byte; 0
    where we do not know them.
    """

    machine: str
    number: int
    bits: int
    little_endian: bool
    cache_flags: int = 0


ARCHITECTURES = (
    Architecture("i386", 3, 32, True),
    Architecture("ppc64", 21, 64, False),
    Architecture("ppc64le", 21, 64, True),
    Architecture("s390", 22, 32, False),
    Architecture("s390x", 22, 64, False),
    Architecture("arm", 40, 32, True),
    Architecture("x86_64", 62, 64, True, 0x0303),
    # x86-64's programs with pointers of 32 bits have the registers of the others.
    Architecture("x86_64", 62, 32, True),
    Architecture("aarch64", 183, 64, True, 0x0A03),
    Architecture("riscv32", 243, 32, True),
    Architecture("riscv64", 243, 64, True),
    Architecture("loongarch64", 258, 64, True),
)

_MACHINES = {(each.number, each.bits, each.little_endian): each.machine for each in ARCHITECTURES}
_BY_MACHINE = {each.machine: each for each in reversed(ARCHITECTURES)}  # of x86_64 the one with 64 bits


def machine_name(number: int, bits: int, little_endian: bool) -> str:
    """Return the name of the machine for ELF files with this e_machine, width and byte order.

    An unknown one is called "machine-" and its number.
    """
    return _MACHINES.get((number, bits, little_endian), f"machine-{number}")


def architecture(machine: str) -> Architecture | None:
    """Return the architecture that uname(2) calls so, None where we do not know it."""
    return _BY_MACHINE.get(machine)
