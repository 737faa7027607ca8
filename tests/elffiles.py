"""Exact and odd ELF files with USDT notes, for tests of the reader."""

import json
import struct

from usdtkit.elf import constants, writer
from usdtkit.elf.writer import Section, Segment
from usdtkit.probes import declaration

SITES = 4  # nops of .text


def ProbeSpec(name, doc, arguments):
    """A probe as `usdtkit.probes.image.build` takes it, of (name, type) pairs."""
    return declaration.ProbeSpec(name, doc, declaration.check_arguments(name, dict(arguments)))


def usdt_file(notes, *, metadata=None, machine="x86_64", base=0):
    """A shared library whose .note.stapsdt is `notes(layout)`; `metadata` (bytes, or for JSON) is put beside it."""
    alloc = constants.SHF_ALLOC
    sections = [
        Section(".stapsdt.base", constants.SHT_PROGBITS, b"\0", alloc),
        Section(".text", constants.SHT_PROGBITS, b"\x90\xc3" * SITES, alloc | constants.SHF_EXECINSTR, 16),
        Section(".probes", constants.SHT_PROGBITS, bytes(2 * SITES), alloc | constants.SHF_WRITE, 2),
        Section(".note.stapsdt", constants.SHT_NOTE, notes, 0, 4),
    ]
    if metadata is not None:
        text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        sections.append(Section(".note.usdtkit", constants.SHT_NOTE, writer.note("usdtkit", 1, text), 0, 4))
    segments = [
        Segment(constants.PT_LOAD, constants.PF_R, ".stapsdt.base", ".stapsdt.base", headers=True),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text"),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_W, ".probes", ".probes"),
    ]
    return writer.write(sections, segments, machine=machine, base=base)


def note(layout, provider, name, arguments="", *, site=0, semaphore=None, moved=0):
    """The note of one site in a `usdt_file`, as it was before prelink moved the file up by `moved` bytes."""
    return writer.stapsdt_note(
        provider,
        name,
        arguments,
        address=(layout.addresses[".text"] + 2 * site - moved) % 2**64,
        base=(layout.addresses[".stapsdt.base"] - moved) % 2**64,
        semaphore=0 if semaphore is None else (layout.addresses[".probes"] + 2 * semaphore - moved) % 2**64,
    )


def big_endian_32(arguments):
    """A 32-bit big-endian file (PowerPC) with one probe old:hit whose site is the first byte of its code at 0x10000."""
    names = b"\0.text\0.note.stapsdt\0.shstrtab\0"
    strings = b"old\0hit\0" + arguments + b"\0"
    description = struct.pack(">III", 0x10004, 0, 0) + strings
    note_bytes = struct.pack(">III", 8, len(description), 3) + b"stapsdt\0" + description
    note_bytes += bytes(-len(note_bytes) % 4)
    text, notes_at = 52 + 32, 52 + 32 + 8
    names_at = notes_at + len(note_bytes)
    table = names_at + len(names)
    header = b"\x7fELF\x01\x02\x01".ljust(16, b"\0")
    header += struct.pack(">HHIIIIIHHHHHH", 3, 20, 1, 0, 52, table, 0, 52, 32, 1, 40, 4, 3)
    segment = struct.pack(">IIIIIIII", 1, text, 0x10000, 0x10000, 8, 8, 5, 0x1000)
    sections = [
        bytes(40),
        struct.pack(">IIIIIIIIII", 1, 1, 6, 0x10000, text, 8, 0, 0, 4, 0),
        struct.pack(">IIIIIIIIII", 7, 7, 0, 0, notes_at, len(note_bytes), 0, 0, 4, 0),
        struct.pack(">IIIIIIIIII", 21, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    return header + segment + bytes(8) + note_bytes + names + b"".join(sections)
