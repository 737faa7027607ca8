import os
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
from elffiles import ProbeSpec, big_endian_32, note, usdt_file
from elftools.elf.elffile import ELFFile

from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import functions
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsdtkitError
from usdtkit.probes.image import build

LIBC = f"/lib/{os.uname().machine}-linux-gnu/libc.so.6"


@pytest.fixture
def store(tmp_path):
    def write(data):
        path = tmp_path / "file"
        path.write_bytes(data)
        return str(path)

    return write


@contextmanager
def nobody():
    """Be a user without privilege, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_sections_and_segments_are_those_that_pyelftools_sees():
    with Image.open(LIBC) as image, Path(LIBC).open("rb") as file:
        elf = ELFFile(file)
        theirs = [(s.name, s["sh_addr"], s["sh_offset"], s["sh_size"], s["sh_link"]) for s in elf.iter_sections()]
        assert [(s.name, s.address, s.offset, s.size, s.link) for s in image.sections] == theirs
        theirs = [(s["p_flags"], s["p_vaddr"], s["p_offset"], s["p_filesz"]) for s in elf.iter_segments()]
        assert [(s.flags, s.address, s.offset, s.file_size) for s in image.segments] == theirs
        assert image.section(".text").address == elf.get_section_by_name(".text")["sh_addr"]
        assert (image.bits, image.little_endian, image.machine) == (64, True, os.uname().machine)


def test_file_offsets_follow_the_segments(store):
    with Image.open(store(usdt_file(b"", base=0x400000))) as image:
        text, probes = image.section(".text"), image.section(".probes")
        assert image.file_offset(text.address + 3) == text.offset + 3
        assert image.file_offset(probes.address, writable=True) == probes.offset
        for address, writable in ((text.address, True), (probes.address, False), (text.address - 1, False), (0, False)):
            with pytest.raises(ElfError, match="lies in no"):
                image.file_offset(address, writable=writable)


def test_a_file_of_other_byte_order_and_width(store):
    with Image.open(store(big_endian_32(b"-4@%r3 1@$5"))) as image:
        assert (image.machine, image.bits, image.little_endian) == ("machine-20", 32, False)
        (probe,) = read_probes(image)
    (site,) = probe.sites
    assert (probe.spec, site.address, site.file_offset) == ("old:hit", 0x10004, 88)
    assert [(argument.name, argument.type) for argument in probe.arguments] == [("arg1", "i32"), ("arg2", "u8")]


def test_more_sections_than_the_header_can_count(store):
    """The true numbers are then in the first section header."""
    data = bytearray(usdt_file(lambda layout: note(layout, "a", "b")))
    table, count, names = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 60)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    struct.pack_into("<Q", data, table + 32, count)
    struct.pack_into("<I", data, table + 40, names)
    with Image.open(store(data)) as image:
        assert len(image.sections) == count
        assert image.section(".note.stapsdt")


def test_what_is_no_elf_file(store, tmp_path):
    for data in (b"", b"\x7fEL", b"#!/bin/sh\n", b"\x7fELF" + bytes(12), b"\x7fELF\x02\x01\x01"):
        with pytest.raises(ElfError, match=str(tmp_path)):
            Image.open(store(data))
    with pytest.raises(ElfError, match="not a regular file"):
        Image.open(tmp_path)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ElfError, match="not a regular file"):
        Image.open(tmp_path / "pipe")


def test_no_such_file(tmp_path):
    for path in (tmp_path / "none", "/dev/null/none", ""):
        with pytest.raises(NotFoundError):
            Image.open(path)
    with pytest.raises(ElfError):
        Image.open("a\0b")


def test_no_permission(store):
    path = store(b"")
    Path(path).chmod(0)
    with nobody(), pytest.raises(PrivilegeError) as caught:
        Image.open(path)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_no_descriptor_stays_open(store):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Image.open(LIBC) as image:
        pass
    image.close()
    with pytest.raises(ElfError):
        Image.open(store(b"not ELF"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_it_stays_the_file_that_was_opened(store):
    path = store(usdt_file(lambda layout: note(layout, "a", "b")))
    with Image.open(path) as image:
        Path(path).unlink()
        store(b"another file of that name")
        assert [probe.spec for probe in read_probes(image)] == ["a:b"]


def test_every_truncation_is_an_error_or_leaves_a_smaller_file(store):
    # Without the checksum that follows it.
    data = build("shop", [ProbeSpec("order", "", (("id", "u64"), ("body", "bytes")))])[:-4]
    for size in {*range(0, 0x200), *range(0, len(data), 7), len(data) - 1}:
        with pytest.raises(UsdtkitError):
            with Image.open(store(data[:size])) as image:
                read_probes(image)
                functions(image, "*")


def test_a_file_that_shrinks_while_it_is_read(store):
    path = store(usdt_file(lambda layout: note(layout, "a", "b")))
    with Image.open(path) as image:
        os.truncate(path, 100)
        with pytest.raises(ElfError, match="truncated"):
            read_probes(image)
