"""Declared probes → the bytes of the provider file: a shared library of stubs with USDT notes on them.

Pure: the same probes, machine and version give the same bytes, on any host. `files` stores them, `usdtkit._probe` maps
them; every tracer reads them. What the readers demand: gdb `.stapsdt.base` and unpadded descriptions, perf a build-id,
a base address and notes that are not allocated, bcc the order of the sections (code, then notes), libbpf an executable
segment around the site, stack printers sized function symbols.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from usdtkit.elf import writer
from usdtkit.elf.writer import Layout, Section, Segment, Symbol
from usdtkit.probes.declaration import TYPES
from usdtkit.version import VERSION

BUILD_ID = bytes(20)
METADATA_OWNER, METADATA_TYPE, METADATA_VERSION = "usdtkit", 1, 1


class Machine(NamedTuple):
    """How one architecture spells a stub: `code` is the site, a nop that is attached to, and the return.

    `registers` are the operands of a C call in order; `stack` the further ones, formatted with their index from 0.
    """

    elf: int
    code: bytes
    filler: bytes
    page: int
    registers: tuple[str, ...]
    stack: str
    stack_start: int


# At the entry of a function the x86-64 stack holds the return address first, that of aarch64 the ninth argument.
MACHINES = {
    "x86_64": Machine(
        writer.EM_X86_64,
        b"\x90\xc3",
        b"\xcc",
        0x1000,
        ("%rdi", "%rsi", "%rdx", "%rcx", "%r8", "%r9"),
        "{}(%rsp)",
        8,
    ),
    "aarch64": Machine(
        writer.EM_AARCH64,
        bytes.fromhex("1f2003d5 c0035fd6"),
        bytes.fromhex("00000000"),
        0x10000,
        tuple(f"x{number}" for number in range(8)),
        "[sp, {}]",
        0,
    ),
}
_STUB_ALIGNMENT = 16


class Declared(Protocol):
    """What is taken from a declared probe; `arguments` are (name, type)."""

    @property
    def name(self) -> str: ...
    @property
    def doc(self) -> str: ...
    @property
    def arguments(self) -> tuple[tuple[str, str], ...]: ...


def symbol_name(provider: str, probe: str) -> str:
    """Return the name of the function symbol of a probe's stub."""
    return f"{provider}_{probe}"


def operands(arguments: Sequence[tuple[str, str]], machine: Machine) -> str:
    """Return the argument string of the note: where each operand lies when the stub is entered."""
    sizes = [size for _, kind in arguments for size in TYPES[kind]]
    texts = []
    for index, size in enumerate(sizes):
        spilled = index - len(machine.registers)
        place = machine.stack.format(machine.stack_start + 8 * spilled) if spilled >= 0 else machine.registers[index]
        texts.append(f"{size}@{place}")
    return " ".join(texts)


def metadata(provider: str, probes: Sequence[Declared]) -> bytes:
    """Return the note that tells names, types and docs, which the USDT notes have no room for: UTF-8 JSON."""
    description = {
        "version": METADATA_VERSION,
        "sdk": VERSION,
        "provider": provider,
        "probes": [
            {
                "name": probe.name,
                "doc": probe.doc,
                "arguments": [{"name": name, "type": kind} for name, kind in probe.arguments],
            }
            for probe in probes
        ],
    }
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
    return writer.note(METADATA_OWNER, METADATA_TYPE, text.encode())


def build(provider: str, probes: Sequence[Declared], *, machine: str = "x86_64") -> bytes:
    """Return the file of a provider, with a build-id that is a hash of the rest. `machine` is a key of MACHINES."""
    target = MACHINES[machine]
    stride = writer.align(len(target.code), _STUB_ALIGNMENT)
    filler = target.filler * ((stride - len(target.code)) // len(target.filler))
    symbols = [
        Symbol(symbol_name(provider, probe.name), ".text", index * stride, len(target.code))
        for index, probe in enumerate(probes)
    ]

    def notes(layout: Layout) -> bytes:
        return b"".join(
            writer.stapsdt_note(
                provider,
                probe.name,
                operands(probe.arguments, target),
                address=layout.addresses[".text"] + index * stride,
                base=layout.addresses[".stapsdt.base"],
            )
            for index, probe in enumerate(probes)
        )

    hash_, dynsym, dynstr, dynamic = writer.dynamic_sections(symbols, f"{provider}.so")
    build_id = writer.note("GNU", 3, BUILD_ID)
    alloc, code = writer.SHF_ALLOC, writer.SHF_ALLOC | writer.SHF_EXECINSTR
    sections = [
        Section(".note.gnu.build-id", writer.SHT_NOTE, build_id, alloc, 4),
        hash_,
        dynsym,
        dynstr,
        Section(".stapsdt.base", writer.SHT_PROGBITS, b"\0", alloc),
        Section(".text", writer.SHT_PROGBITS, (target.code + filler) * len(probes), code, _STUB_ALIGNMENT),
        dynamic,
        Section(".note.stapsdt", writer.SHT_NOTE, notes, 0, 4),
        Section(".note.usdtkit", writer.SHT_NOTE, metadata(provider, probes), 0, 4),
        *writer.static_sections(symbols),
    ]
    read, execute, write = writer.PF_R, writer.PF_R | writer.PF_X, writer.PF_R | writer.PF_W
    segments = [
        Segment(writer.PT_LOAD, read, ".note.gnu.build-id", ".stapsdt.base", headers=True),
        Segment(writer.PT_LOAD, execute, ".text", ".text"),
        Segment(writer.PT_LOAD, write, ".dynamic", ".dynamic"),
        Segment(writer.PT_DYNAMIC, write, ".dynamic", ".dynamic"),
        Segment(writer.PT_NOTE, read, ".note.gnu.build-id", ".note.gnu.build-id", align=4),
        # Without it glibc would make the stacks of the whole process executable.
        Segment(writer.PT_GNU_STACK, write, align=16),
    ]
    image = writer.write(sections, segments, machine=target.elf, page=target.page)
    identity = hashlib.sha256(image).digest()[: len(BUILD_ID)]
    return image.replace(build_id, writer.note("GNU", 3, identity), 1)


def file_name(provider: str, image: bytes) -> str:
    """Return PROVIDER-HASH.so, the hash over all bytes of the file."""
    return f"{provider}-{hashlib.sha256(image).hexdigest()[:16]}.so"
