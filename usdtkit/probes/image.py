"""Declared probes → the bytes of the provider file: a shared library of stubs with USDT notes on them.

Pure: the same probes, machine, nop and version give the same bytes on any host. So the name of a file is a hash of
these, and is known before its bytes are made. `loading` asks for both, `files` stores the bytes, `usdtkit._probe` maps
them, and every tracer reads them. Each reader has demands. gdb needs `.stapsdt.base` and unpadded descriptions. perf
needs a build-id, a base address and notes that are not allocated. bcc needs the code before the notes. libbpf needs an
executable segment around the site. Tools that print stacks need function symbols with a size.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.elf.stubs import REJECTED
from usdtkit.errors import UsageError
from usdtkit.probes.declaration import ArgumentSpec, ProbeSpec, canonical, canonical_arguments
from usdtkit.version import VERSION

# The writer is imported late, because it is needed only for a file that does not exist yet.
if TYPE_CHECKING:
    from usdtkit.elf.writer import Layout

# Must be increased with each change of the bytes that one version of usdtkit makes of a declaration.
FORMAT = 4
BUILD_ID = bytes(20)

# A file ends with the CRC-32 of its other bytes, little-endian. The CRC-32 of the whole of such a file is always this.
_WHOLE = 0x2144DF1C
# p_offset, p_vaddr, p_paddr, p_filesz of the second program header
_TEXT_HEADER = 64 + 56 + 8


class Machine(NamedTuple):
    """A stub in the code of one architecture: a nop, which is the site, and a return.

    `code` has the nop that is safe everywhere, `fast` the one that some kernels make cheaper. `registers` hold the
    operands of a C call in order. Further operands are on the stack; `stack` is formatted with their offset in bytes.
    """

    code: bytes
    fast: bytes
    filler: bytes
    page: int
    registers: tuple[str, ...]
    stack: str
    stack_start: int


# At the entry of a function the stack begins with the return address on x86-64, and with the ninth argument on aarch64.
MACHINES = {
    "x86_64": Machine(
        b"\x90\xc3",
        bytes.fromhex("0f1f440000 c3"),
        b"\xcc",
        0x1000,
        ("%rdi", "%rsi", "%rdx", "%rcx", "%r8", "%r9"),
        "{}(%rsp)",
        8,
    ),
    "aarch64": Machine(
        bytes.fromhex("1f2003d5 c0035fd6"),
        bytes.fromhex("1f2003d5 c0035fd6"),
        bytes.fromhex("00000000"),
        0x10000,
        tuple(f"x{number}" for number in range(8)),
        "[sp, {}]",
        0,
    ),
}
# The distance of stubs in bytes. A five-byte nop must not cross a page or a cache line. Behind the stub follows the
# site for calls that cannot be fired.
STRIDE = 16


def symbol_name(provider: str, probe: str) -> str:
    """Return the name of the function symbol of a probe's stub."""
    return f"{provider}_{probe}"


def file_name(provider: str, text: str, *, machine: str = "x86_64", nop: str = "safe") -> str:
    """Return PROVIDER-HASH.so, with a hash of all that its bytes depend on. `text` is the probes' canonical text."""
    nop = nop if MACHINES[machine].fast != MACHINES[machine].code else "safe"
    text = f"{FORMAT} {VERSION} {machine} {nop} {provider}\n{text}"
    return f"{provider}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.so"


def canonical_of(probes: Sequence[ProbeSpec]) -> str:
    """Return the canonical text of these probes."""
    names, docs, arguments, stabilities = zip(*probes, strict=True) if probes else ((), (), (), ())
    return canonical(names, docs, stabilities, list(map(canonical_arguments, arguments)))


def is_whole(content: bytes, name: str) -> bool:
    """Return whether these bytes are an undamaged file that was built under this name, which is its DT_SONAME.

    A checksum is enough, because only root and this user can have written the file: it detects a crash or a bad disk.
    """
    return zlib.crc32(content) == _WHOLE and f"\0{name}\0".encode() in content


def text_of(content: bytes) -> tuple[int, int]:
    """Return the file offset of the stubs of a whole file, which is also their address, and their size in bytes."""
    offset, _, _, size = struct.unpack_from("<4Q", content, _TEXT_HEADER)
    return offset, size


def operands(arguments: Sequence[ArgumentSpec], machine: Machine) -> str:
    """Return the argument string of the note: the place of each operand when the stub is entered."""
    sizes = [size for argument in arguments for size in DECLARABLE[argument.type]]
    texts = []
    for index, size in enumerate(sizes):
        spilled = index - len(machine.registers)
        place = machine.stack.format(machine.stack_start + 8 * spilled) if spilled >= 0 else machine.registers[index]
        texts.append(f"{size}@{place}")
    return " ".join(texts)


def metadata_note(provider: str, probes: Sequence[ProbeSpec]) -> bytes:
    """Return the note with what the USDT notes have no room for. UsageError if it would be too large."""
    from usdtkit.elf import metadata, writer

    note = writer.note(metadata.OWNER, metadata.TYPE, metadata.encode(provider, VERSION, probes))
    if len(note) > metadata.MAX_SIZE:
        raise UsageError(
            f"the docs and names of provider {provider} take {len(note)} bytes, at most {metadata.MAX_SIZE} are "
            "possible",
            hint="shorten them, or make two providers",
        )
    return note


def build(provider: str, probes: Sequence[ProbeSpec], *, machine: str = "x86_64", nop: str = "safe") -> bytes:
    """Return the file of a provider, with a build-id that is a hash of the rest.

    `machine` is a key of MACHINES, `nop` one of `declaration.NOPS`. Raises UsageError if names and docs together
    are too long.
    """
    from usdtkit.elf import constants, metadata, writer
    from usdtkit.elf.writer import Section, Segment, Symbol

    target = MACHINES[machine]
    stub = target.fast if nop == "fast" else target.code
    at, rejected = REJECTED[machine]
    content = stub + target.filler * ((at - len(stub)) // len(target.filler)) + rejected
    symbols = [
        Symbol(symbol_name(provider, probe.name), ".text", index * STRIDE, len(stub))
        for index, probe in enumerate(probes)
    ]

    def notes(layout: Layout) -> bytes:
        return b"".join(
            writer.stapsdt_note(
                provider,
                probe.name,
                operands(probe.arguments, target),
                address=layout.addresses[".text"] + index * STRIDE,
                base=layout.addresses[constants.STAPSDT_BASE_SECTION],
            )
            for index, probe in enumerate(probes)
        )

    name = file_name(provider, canonical_of(probes), machine=machine, nop=nop)
    hash_, dynsym, dynstr, dynamic = writer.dynamic_sections(symbols, name)
    build_id = writer.note(constants.GNU_OWNER, constants.NT_GNU_BUILD_ID, BUILD_ID)
    alloc, code = constants.SHF_ALLOC, constants.SHF_ALLOC | constants.SHF_EXECINSTR
    sections = [
        Section(".note.gnu.build-id", constants.SHT_NOTE, build_id, alloc, 4),
        hash_,
        dynsym,
        dynstr,
        Section(constants.STAPSDT_BASE_SECTION, constants.SHT_PROGBITS, b"\0", alloc),
        Section(".text", constants.SHT_PROGBITS, content * len(probes), code, STRIDE),
        dynamic,
        Section(constants.STAPSDT_SECTION, constants.SHT_NOTE, notes, 0, 4),
        Section(metadata.SECTION, constants.SHT_NOTE, metadata_note(provider, probes), 0, 4),
        *writer.static_sections(symbols),
    ]
    read, execute, write = constants.PF_R, constants.PF_R | constants.PF_X, constants.PF_R | constants.PF_W
    segments = [
        Segment(constants.PT_LOAD, read, ".note.gnu.build-id", constants.STAPSDT_BASE_SECTION, headers=True),
        Segment(constants.PT_LOAD, execute, ".text", ".text"),
        Segment(constants.PT_LOAD, write, ".dynamic", ".dynamic"),
        Segment(constants.PT_DYNAMIC, write, ".dynamic", ".dynamic"),
        Segment(constants.PT_NOTE, read, ".note.gnu.build-id", ".note.gnu.build-id", align=4),
        # Without it glibc would make the stacks of the whole process executable.
        Segment(constants.PT_GNU_STACK, write, align=16),
    ]
    image = writer.write(sections, segments, machine=machine, page=target.page)
    identity = hashlib.sha256(image).digest()[: len(BUILD_ID)]
    image = image.replace(build_id, writer.note(constants.GNU_OWNER, constants.NT_GNU_BUILD_ID, identity), 1)
    return image + zlib.crc32(image).to_bytes(4, "little")
