import struct

import pytest
from elffiles import usdt_file

from usdtkit.elf import constants, writer
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import Addresses, functions, indirect_functions
from usdtkit.elf.writer import Section, Segment, Symbol
from usdtkit.errors import ElfError


@pytest.fixture
def image(tmp_path):
    def opened(data):
        path = tmp_path / "file"
        path.write_bytes(data)
        images.append(Image.open(path))
        return images[-1]

    images = []
    yield opened
    for each in images:
        each.close()


def library(*symbols):
    """A file with .symtab and .dynsym of the same symbols, by (name, offset into .text) or as Symbol."""
    symbols = [s if isinstance(s, Symbol) else Symbol(s[0], ".text", s[1], 16) for s in symbols]
    hash_, dynsym, dynstr, _ = writer.dynamic_sections(symbols, "x.so")
    code = Section(".text", constants.SHT_PROGBITS, bytes(997), constants.SHF_ALLOC | constants.SHF_EXECINSTR, 16)
    segments = [Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text")]
    return writer.write([hash_, dynsym, dynstr, code, *writer.static_sections(symbols)], segments, base=0x10000)


def names(found):
    return [function.name for function in found]


def test_both_tables_give_each_function_once(image):
    (found,) = functions(image(library(("read", 0), ("write", 16))), "write")
    assert (found.name, found.size, found.file_offset) == ("write", 16, found.address - 0x10000)


def test_globs_and_exact_names_together_by_address(image):
    opened = image(library(("read", 64), ("pread", 16), ("pwrite", 32), ("open", 48)))
    assert names(functions(opened, "p*")) == ["pread", "pwrite"]
    assert names(functions(opened, "*read")) == ["pread", "read"]
    assert names(functions(opened, "?read", "open")) == ["pread", "open"]
    assert names(functions(opened, "[op]*e*")) == ["pread", "pwrite", "open"]
    assert names(functions(opened, "*")) == ["pread", "pwrite", "open", "read"]
    assert names(functions(opened, "rea", "readx", "")) == []
    assert names(functions(opened, "*writer*")) == []


def test_a_name_that_begins_inside_another(image):
    data = library(("pread", 0), ("prune", 16)).replace(struct.pack("<I", 1) + b"\x12", struct.pack("<I", 2) + b"\x12")
    opened = image(data)
    assert names(functions(opened, "read")) == ["read"]
    assert names(functions(opened, "*read")) == ["read"]
    assert names(functions(opened, "pread")) == []


def test_versions_are_not_part_of_the_name(image):
    opened = image(library(("memcpy@@GLIBC_2.14", 0), ("memcpy@GLIBC_2.2.5", 16)))
    assert names(functions(opened, "memcpy")) == ["memcpy", "memcpy"]
    assert names(functions(opened, "mem*y")) == ["memcpy", "memcpy"]


def test_what_is_no_function_to_trace_is_left_out(image):
    opened = image(
        library(
            ("real", 0),
            Symbol("undefined", ""),
            Symbol("variable", ".text", 4, 4, constants.STT_OBJECT),
            Symbol("indirect", ".text", 8, 4, 10),
            Symbol("data_function", ".dynstr", 0, 4),
            Symbol("outside", ".text", 5000, 4),
        )
    )
    assert names(functions(opened, "*")) == ["real"]
    assert names(indirect_functions(opened, "ind*")) == ["indirect"]


def test_addresses_for_operands(image):
    opened = image(
        library(
            ("function", 0),
            Symbol("variable", ".text", 4, 4, constants.STT_OBJECT),
            Symbol("twice", ".text", 4, 4, constants.STT_OBJECT),
            Symbol("twice", ".text", 8, 4, constants.STT_OBJECT),
            Symbol("undefined", ""),
        )
    )
    find, text = Addresses(opened).find, opened.section(".text").address
    names = ["function", "variable", "twice", "undefined", "unction", "", "none"]
    assert [find(name) for name in names] == [text, text + 4, None, None, None, None, None]


def test_a_file_without_symbols(image):
    assert functions(image(usdt_file(b"")), "*") == []


def test_a_string_table_that_does_not_exist_is_damage(image):
    data = library(("read", 0))
    with Image.open(image(data).path) as good:
        section = good.section(".symtab")
        at = struct.unpack_from("<Q", data, 40)[0] + 64 * good.sections.index(section)
    with pytest.raises(ElfError, match="string table 997"):
        functions(image(data[: at + 40] + struct.pack("<I", 997) + data[at + 44 :]), "read")


def test_a_string_table_without_any_end_is_searched_in_linear_time(image):
    data = library(*((f"{'aHeap' * 2000}{number}", number) for number in range(97)))
    assert len(functions(image(data.replace(b"\0aHeap", b"aaHeap")), "*Heap*b*c*d*")) == 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_functions_beyond_the_end_of_the_file_are_damage(image, machine):
    data = library(("read", 0))
    machine_at, offset_of_first_segment = 18, 64 + 8
    number = {"x86_64": 62, "aarch64": 183}[machine]
    data = data[:machine_at] + struct.pack("<H", number) + data[machine_at + 2 :]
    assert names(functions(image(data), "read")) == ["read"]
    moved = struct.pack("<Q", len(data) + 4096)
    with pytest.raises(ElfError, match="truncated: read lies beyond the end of the file"):
        functions(image(data[:offset_of_first_segment] + moved + data[offset_of_first_segment + 8 :]), "read")
