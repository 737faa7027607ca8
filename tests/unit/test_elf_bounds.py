"""Files that point to the end of all memory, or have more names than bytes: an answer, without all memory or time."""

import struct
import sys
import tracemalloc
from array import array

from usdtkit.elf import godwarf, sourcenames
from usdtkit.elf.constants import PF_W, PT_LOAD
from usdtkit.elf.gomodule import data_segments
from usdtkit.elf.image import Image
from usdtkit.elf.pclntab import PcTable
from usdtkit.elf.relocations import Relocations
from usdtkit.elf.tables import Table


def test_addresses_beyond_all_memory():
    with Image.open(sys.executable) as image:
        assert Relocations(image).pointer((1 << 64) + 8) == 0
        whole = [address for address, _ in data_segments(image, PF_W)]
        assert whole
        segments = [s._replace(address=2**64 - 8) if s.address == whole[0] else s for s in image.segments]
        assert any(s.type == PT_LOAD and s.address == 2**64 - 8 for s in segments)
        image.segments = segments
        assert [address for address, _ in data_segments(image, PF_W)] == whole[1:]


def test_a_member_at_the_end_of_what_is_read():
    begin, end = b"runtime.g\0stack\0", b"goid\0"
    for behind in range(4):
        description = begin + bytes(godwarf._DESCRIPTION - len(begin) - len(end) - behind) + end + b"\x98\1\0"[:behind]
        assert godwarf._offset(description, b"stack", b"goid") == (152 if behind == 3 else 0)


def test_a_table_of_lines_whose_pairs_are_about_no_instruction():
    table = PcTable.__new__(PcTable)
    table._lines, table._quantum, table.starts = b"\2\0" * 100_000, 1, array("Q", [4096, 8192])
    assert table._value(0, 0, 4096) == -1
    table._lines = b"\x0e\3" + b"\2\1"  # 6 for three instructions, then 7
    assert [table._value(0, 0, address) for address in (4096, 4098, 4099)] == [6, 6, 7]


def test_names_that_overlap():
    strings = (b"\0" + b"_Za_" * 2047) * 30 + b"\0"
    places = [at for at in range(len(strings)) if strings.startswith(b"_Z", at)]
    entries = b"".join(struct.pack("<IBBHQQ", at, 18, 0, 1, 4096 + at, 1) for at in places)
    with Image.open(sys.executable) as image:
        table = Table(image, entries, strings)
        tracemalloc.start()
        try:
            assert list(sourcenames.matching(table, ["a::*"])) == []
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 64 << 20
