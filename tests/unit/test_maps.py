"""Lines of /proc/PID/maps, with names that try to look like something else."""

import os

import pytest

from usdtkit.maps import Identity, all_mappings, executable_mappings, mapping_at, mappings_in, maps_of

LINE = b"7f0000001000-7f0000003000 r-xp 00002000 08:1f 4711                      "
IDENTITY = Identity(8, 0x1F, 4711)


def test_fields():
    (mapping,) = all_mappings(LINE + b"/usr/lib/libc.so.6\n")
    assert mapping == (0x7F0000001000, 0x7F0000003000, b"r-xp", 0x2000, IDENTITY, "/usr/lib/libc.so.6")
    assert mapping.span == "7f0000001000-7f0000003000"
    assert mapping.is_executable and not mapping.is_writable
    assert (mapping.address(0x2010), mapping.address(0x1FFF), mapping.address(0x4000)) == (0x7F0000001010, None, None)
    assert mapping.identity.device == os.makedev(8, 0x1F)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"", ""),
        (b"[vdso]", "[vdso]"),
        (b"/a b/c  d ", "/a b/c  d "),
        (b"/a\\012b", "/a\nb"),
        (b"/a\rb\x0b\x85", "/a\rb\x0b\udc85"),
        (b"/a 08:1f 4711 b", "/a 08:1f 4711 b"),
        (b"/lib.so (deleted)", "/lib.so (deleted)"),
    ],
)
def test_names(written, name):
    other = b"7f0000003000-7f0000004000 rw-p 00000000 00:00 0 \n"
    maps = LINE + written + b"\n" + other
    assert [mapping.name for mapping in all_mappings(maps)] == [name, ""]
    assert [mapping.name for mapping in executable_mappings(maps)] == [name]
    assert [mapping.name for mapping in mappings_in(maps, IDENTITY)] == [name]
    assert mapping_at(maps, 0x7F0000002FFF).name == name
    assert mapping_at(maps, 0x7F0000004000) is None


def test_a_name_that_looks_like_a_file_is_no_mapping_of_it():
    maps = b"7f0000001000-7f0000003000 r-xp 00002000 08:1f 12 /a 08:1f 4711 b\n"
    assert mappings_in(maps, IDENTITY) == []


def test_a_name_does_not_make_a_mapping_executable():
    assert list(executable_mappings(b"1000-2000 r--p 00000000 08:1f 12 /a r-xp\n")) == []


def test_our_own():
    maps = maps_of("self")
    mappings = list(all_mappings(maps))
    assert len(mappings) == maps.count(b"\n")
    assert [mapping for mapping in mappings if mapping.is_executable] == list(executable_mappings(maps))
    assert any(mapping.name == "[stack]" for mapping in mappings)
