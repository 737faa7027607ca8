"""Which sections a table is made of, and what it says where there is nothing to say."""

import struct
import subprocess
from pathlib import Path

import pytest

from usdtkit.elf import constants
from usdtkit.elf.image import Image
from usdtkit.errors import ElfError, UnsupportedError
from usdtkit.unwind import tables
from usdtkit.unwind.tables import PAGE, read_table

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
SOURCE = "int other(int); int work(int n) { char large[64]; return other(n) + large[n]; }"
ONLY_DEBUG = ["-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]


def table_of(path):
    with Image.open(path) as image:
        return read_table(image)


def compiled(path, compiler="gcc", *flags):
    command = [compiler, "-xc", "-", "-O1", "-shared", "-fPIC", "-nostartfiles", *flags, "-o", path]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return path


def test_rows_index_and_ranges():
    table = table_of(LIBC)
    assert table.machine == "x86_64"
    assert len(table.rows) == 8 * len(table)
    index = [number for (number,) in struct.iter_unpack("<I", table.index)]
    assert index == sorted(index)
    assert index[0] == 0
    (code,) = table.ranges
    assert len(index) == -(-(code.address + code.size) // PAGE) + 1
    addresses = [table.row(number).address for number in range(len(table))]
    assert addresses == sorted(set(addresses))
    assert tuple(table.counts) == tables.REASONS
    with Image.open(LIBC) as image:
        assert image.address(code.offset) == table.lowest + code.address


def test_without_section_headers(tmp_path):
    data = bytearray(Path(LIBC).read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    path = tmp_path / "libc"
    path.write_bytes(data)
    assert table_of(path) == table_of(LIBC)


def test_a_header_that_leads_nowhere(tmp_path):
    data = bytearray(Path(LIBC).read_bytes())
    data[0x28:0x30] = bytes(8)
    data[0x3C:0x40] = bytes(4)
    with Image.open(LIBC) as image:
        header = next(s for s in image.segments if s.type == constants.PT_GNU_EH_FRAME)
    struct.pack_into("<i", data, header.offset + 4, 0x7FFFFFFF)
    path = tmp_path / "libc"
    path.write_bytes(data)
    with pytest.raises(ElfError, match=r"damaged \.eh_frame_hdr"):
        table_of(path)


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
@pytest.mark.parametrize("packed", ["", "-gz=zlib", "-gz=zlib-gnu"])
def test_debug_frame_says_the_same_where_nothing_else_does(tmp_path, compiler, packed):
    usual = table_of(compiled(tmp_path / "usual", compiler, "-fasynchronous-unwind-tables", "-Wl,-z,noseparate-code"))
    debug = table_of(compiled(tmp_path / "debug", compiler, *ONLY_DEBUG, *filter(None, [packed])))
    assert usual.counts["ranges"] >= debug.counts["ranges"] == 1
    rules = [table.row(number)[1:] for table in (debug, usual) for number in range(len(table))]
    # From the gap before to the gap behind the function; on x86-64 the linker describes its own code besides.
    assert len(debug) > 3
    assert rules[1 : len(debug) - 1] == rules[-len(debug) + 1 : -1]


def test_both_sections_count(tmp_path):
    """The start of a program is in .eh_frame, whatever the flags are by which its own code was compiled."""
    path = tmp_path / "program"
    source = "int main(int count, char **words) { return count == 1; }"
    subprocess.run(["gcc", "-xc", "-", "-O1", *ONLY_DEBUG, "-o", path], input=source, text=True, check=True)
    symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.split()
    at = {name: int(symbols[place - 2], 16) for name in ("main", "_start") if (place := symbols.index(name))}
    table = table_of(path)
    assert table.find(at["_start"]).frame == tables.END
    assert table.find(at["main"])[1:] == (1, tables.SP, tables.NOT_SAVED, 0)


def test_nothing_to_say(tmp_path):
    table = table_of(compiled(tmp_path / "none", "gcc", *ONLY_DEBUG[1:], "-Wl,--no-ld-generated-unwind-info"))
    assert len(table) == 1
    assert table.row(0) == (0, 0, tables.NONE, tables.NOT_SAVED, 0)
    assert not any(table.counts.values())


def test_other_machines_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="of riscv64 is not read"):
        table_of(compiled(tmp_path / "other", "riscv64-linux-gnu-gcc"))


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        (2, b"\x28\xb5\x2f\xfd", "packed by method 2, which is not supported"),
        (1, b"\xff" * 20, r"damaged \.debug_frame"),
    ],
)
def test_packed_in_another_way(tmp_path, kind, content, problem):
    frames = tmp_path / "frames"
    frames.write_bytes(struct.pack("<IIQQ", kind, 0, 4096, 8) + content)
    path = compiled(tmp_path / "file", "gcc", *ONLY_DEBUG[1:])
    add = ["--add-section", f".debug_frame={frames}"]
    subprocess.run(["objcopy", *add, path], check=True)
    data = bytearray(path.read_bytes())
    with Image.open(path) as image:
        number = [section.name for section in image.sections].index(".debug_frame")
    headers = struct.unpack_from("<Q", data, 0x28)[0]
    struct.pack_into("<Q", data, headers + 64 * number + 8, constants.SHF_COMPRESSED)
    path.write_bytes(data)
    with pytest.raises(ElfError, match=problem):
        table_of(path)


def test_code_that_is_too_far_from_the_beginning(tmp_path):
    data = bytearray(Path(compiled(tmp_path / "file")).read_bytes())
    for number in range(struct.unpack_from("<H", data, 56)[0]):
        at = 64 + 56 * number
        kind, flags = struct.unpack_from("<II", data, at)
        if kind == constants.PT_LOAD and flags & constants.PF_X:
            struct.pack_into("<Q", data, at + 16, 1 << 40)
    path = tmp_path / "far"
    path.write_bytes(data)
    with pytest.raises(ElfError, match="too far"):
        table_of(path)


def test_a_damaged_section_is_named(tmp_path):
    path = compiled(tmp_path / "file")
    with Image.open(path) as image:
        place = image.section(".eh_frame").offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, place, 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(ElfError, match="damaged call frame information: the entry at 0x0 does not lie in the section"):
        table_of(path)
