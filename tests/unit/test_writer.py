import ctypes
import io
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from usdtkit.elf import constants, writer
from usdtkit.elf.writer import Section, Segment, Symbol
from usdtkit.errors import UsageError


def library(names, **options):
    symbols = [Symbol(name, ".text", 16 * at, 16) for at, name in enumerate(names)]
    hash_, dynsym, dynstr, dynamic = writer.dynamic_sections(symbols, "x.so")
    sections = [
        hash_,
        dynsym,
        dynstr,
        Section(
            ".text",
            constants.SHT_PROGBITS,
            b"\xc3" * 16 * len(names),
            constants.SHF_ALLOC | constants.SHF_EXECINSTR,
            16,
        ),
        dynamic,
        Section(".comment", constants.SHT_PROGBITS, b"hello"),
        *writer.static_sections(symbols),
    ]
    segments = [
        Segment(constants.PT_LOAD, constants.PF_R, ".hash", ".dynstr", headers=True),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text"),
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_W, ".dynamic", ".dynamic"),
        Segment(constants.PT_DYNAMIC, constants.PF_R | constants.PF_W, ".dynamic", ".dynamic"),
    ]
    return writer.write(sections, segments, **options)


def test_readelf_finds_nothing_to_complain_of(tmp_path):
    path = tmp_path / "x.so"
    path.write_bytes(library(["one", "two"]))
    done = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Library soname: [x.so]" in done.stdout
    assert "two" in done.stdout


@pytest.mark.parametrize("count", [1, 2, 7, 997])
def test_the_dynamic_linker_finds_every_symbol(tmp_path, count):
    names = [f"a_name_longer_than_the_28_bits_of_its_hash_{number}" for number in range(count)]
    path = tmp_path / "x.so"
    path.write_bytes(library(names))
    loaded = ctypes.CDLL(path)
    sites = [ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value for name in names]
    assert [site - sites[0] for site in sites] == list(range(0, 16 * count, 16))
    assert not hasattr(loaded, "another")


def test_addresses_are_offsets_above_the_base():
    elf = ELFFile(io.BytesIO(library(["one"], base=0x400000, type=constants.ET_EXEC, page=0x10000)))
    text = elf.get_section_by_name(".text")
    assert text["sh_addr"] == 0x400000 + text["sh_offset"]
    assert text["sh_addr"] % 0x10000 == 0
    assert elf.get_section_by_name(".comment")["sh_addr"] == 0
    assert elf.get_section_by_name(".symtab").get_symbol(1)["st_value"] == text["sh_addr"]
    assert elf["e_type"] == "ET_EXEC"


def test_a_note_pads_but_does_not_count_the_padding():
    assert writer.note("abc", 7, b"12345") == b"\4\0\0\0\5\0\0\0\7\0\0\0abc\0" + b"12345\0\0\0"


def test_a_content_may_use_the_layout_but_not_grow_with_it():
    def address(layout):
        return layout.addresses[".a"].to_bytes(8, "little")

    def growing(layout):
        return bytes(layout.addresses[".a"])

    sections = [
        Section(".a", constants.SHT_PROGBITS, b"x", constants.SHF_ALLOC),
        Section(".b", constants.SHT_PROGBITS, address),
    ]
    elf = ELFFile(io.BytesIO(writer.write(sections, [])))
    assert int.from_bytes(elf.get_section_by_name(".b").data(), "little") == elf.get_section_by_name(".a")["sh_addr"]
    with pytest.raises(UsageError, match=r"\.b changed its length"):
        writer.write([sections[0], Section(".b", constants.SHT_PROGBITS, growing)], [])


def test_two_sections_of_one_name():
    with pytest.raises(UsageError, match="same name"):
        writer.write([Section(".a", 1, b""), Section(".a", 1, b"")], [])
