"""Addresses → functions, in files made for it and against nm."""

import random
import subprocess
from collections import defaultdict

import pytest

from usdtkit.elf import constants, writer
from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable
from usdtkit.elf.symbols import functions
from usdtkit.elf.writer import Section, Segment, Symbol
from usdtkit.errors import ElfError, UsdtkitError

SOURCE = """
__asm__(".text\\n.globl label\\n.type label, @notype\\nlabel: nop; nop; ret\\n"
        ".Lmark: nop\\n"
        ".globl sized\\n.type sized, @function\\nsized: nop\\ninside: nop; nop; ret\\n.size sized, .-sized\\n"
        ".fill 64, 1, 0xcc\\n");
int exported(void) { return 1; }
extern int __exported(void) __attribute__((alias("exported")));
extern int weak(void) __attribute__((weak, alias("exported")));
static __attribute__((noinline)) int hidden(void) { return 2; }
int data = 3;
int main(void) { return hidden() + exported(); }
"""


def table(path):
    with Image.open(path) as image:
        return SymbolTable(image)


def symbols(path, *flags):
    """nm's defined symbols of code: name → address, and (address, size) → names."""
    output = subprocess.run(["nm", "--defined-only", "-S", *flags, path], capture_output=True, text=True).stdout
    addresses, spans = {}, defaultdict(set)
    for line in output.splitlines():
        *numbers, kind, name = line.split()
        if kind in "tTwWi":
            name = name.partition("@")[0]
            addresses[name] = int(numbers[0], 16)
            if len(numbers) > 1:
                spans[int(numbers[0], 16), int(numbers[1], 16)].add(name)
    return addresses, spans


@pytest.fixture(scope="module")
def program(compile_c):
    return compile_c(SOURCE, "-O1")


def test_aliases_labels_and_what_contains_them(program):
    addresses, _ = symbols(program)
    found = table(program)
    assert found.find(addresses["exported"]) == ("exported", 0)
    assert found.find(addresses["hidden"] + 3) == ("hidden", 3)
    assert found.find(addresses["label"] + 1) == ("label", 1)
    assert found.find(addresses["inside"]) in {("inside", 0), ("sized", 1)}
    assert found.find(addresses["inside"] + 1) == ("sized", 2)
    assert found.find(addresses["sized"] + 40) is None
    assert found.find(1) is None
    assert found.find(2**64 - 1) is None


def test_data_is_no_function(program):
    output = subprocess.run(["nm", program], capture_output=True, text=True).stdout
    address = next(int(line.split()[0], 16) for line in output.splitlines() if line.endswith(" D data"))
    assert table(program).find(address) is None


def test_file_offsets_become_addresses(compile_c):
    path = compile_c("chains.c", "-no-pie")
    addresses, _ = symbols(path)
    with Image.open(path) as image:
        assert table(path).address(image.file_offset(addresses["work"])) == addresses["work"]
    assert table(path).address(2**40) is None


@pytest.mark.parametrize(
    ("path", "flags"), [("/usr/sbin/mariadbd", ("-D",)), ("/lib/x86_64-linux-gnu/libc.so.6", ("-D",))]
)
def test_every_function_as_nm_has_it(path, flags):
    _, spans = symbols(path, *flags)
    starts = defaultdict(set)
    for (start, _), names in spans.items():
        starts[start] |= names
    found = table(path)
    chosen = random.Random(997).sample(sorted(span for span in spans if span[1]), 997)
    for start, size in chosen:
        assert found.find(start)[0] in starts[start]
        name, offset = found.find(start + size - 1)
        assert name in starts[start + size - 1 - offset]


def test_a_separate_debug_file(program, tmp_path):
    stripped, debug = tmp_path / "stripped", tmp_path / "debug"
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", "-o", stripped, program], check=True)
    address = symbols(program)[0]["hidden"]
    assert table(stripped).find(address) is None
    with Image.open(stripped) as image, Image.open(debug) as other:
        assert SymbolTable(image, other).find(address) == ("hidden", 0)


def test_of_two_tables_of_one_kind_the_first_counts_everywhere(tmp_path):
    code = Section(
        ".text", constants.SHT_PROGBITS, b"\xc3" * 64, constants.SHF_ALLOC | constants.SHF_EXECINSTR, align=64
    )
    sections = [code]
    for number, name in enumerate(("first", "second")):
        symbols_of, strings = writer.static_sections([Symbol(name, ".text", 0, 64)])
        strings_name = f".strtab{number}"
        sections += [
            symbols_of._replace(name=f".symtab{number}", link=strings_name),
            strings._replace(name=strings_name),
        ]
    path = tmp_path / "two"
    segments = [Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text")]
    path.write_bytes(writer.write(sections, segments))
    with Image.open(path) as image:
        (function,) = functions(image, "*")
        assert function.name == "first"
        assert SymbolTable(image).find(function.address) == ("first", 0)
        assert ExitFinder(image).around(function.address + 1).name == "first"


def test_other_architectures(compile_c):
    wide = compile_c("int there(void) { return 1; }", "-c", "-O1", compiler="aarch64-linux-gnu-gcc")
    assert table(wide).find(0) is None  # relocatable: nothing has an address yet
    narrow = compile_c("void _start(void) {}\nint there(void) { return 1; }", "-m32", "-nostdlib", "-no-pie", "-static")
    assert table(narrow).find(symbols(narrow)[0]["there"]) == ("there", 0)


def test_damaged_tables_are_errors_of_ours(program, tmp_path):
    whole = program.read_bytes()
    generator = random.Random(997)
    with Image.open(program) as image:
        places = [s for s in image.sections if s.name in (".symtab", ".strtab", ".dynsym")]
    damaged = tmp_path / "damaged"
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(16):
            section = generator.choice(places)
            content[section.offset + generator.randrange(section.size)] = generator.randrange(256)
        at = generator.randrange(len(content) - 2048, len(content))  # section headers
        content[at] = generator.randrange(256)
        damaged.write_bytes(content)
        try:
            found = table(damaged)
        except UsdtkitError as error:
            assert isinstance(error, ElfError)
            continue
        for _ in range(50):
            address = generator.randrange(2**16)
            name, offset = found.find(address) or ("", 0)
            assert isinstance(name, str)
            assert 0 <= offset <= address
