"""Where a file's segments and first instructions lie, against readelf and against what the kernel maps."""

import mmap
import re
import subprocess
from pathlib import Path

import pytest

from usdtkit.elf import constants, writer
from usdtkit.elf.image import Image
from usdtkit.elf.loading import (
    address_of,
    first_instructions,
    load_bias,
    misleads_kernel,
    notice,
    places_of_code,
    span,
)
from usdtkit.elf.writer import Section, Segment

PAGE = mmap.PAGESIZE
SOURCE = "int counter = 997; int main(void) { return counter; }"


def readelf(path, *options):
    return subprocess.run(["readelf", "-W", *options, path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("flags", [[], ["-no-pie"], ["-static"], ["-m32"], ["-shared", "-fPIC"]], ids="".join)
def test_first_instructions(flags, compile_c):
    compiler = "gcc"
    if "-m32" in flags:
        flags, compiler = [], "i686-linux-gnu-gcc"
    path = compile_c(SOURCE, *flags, compiler=compiler)
    entry = int(re.search(r"Entry point address: +(0x[0-9a-f]+)", readelf(path, "-h"))[1], 16)
    init = re.search(r"\(INIT\) +(0x[0-9a-f]+)", readelf(path, "-d"))
    with Image.open(path) as image:
        wanted = [entry] if entry else []
        wanted += [int(init[1], 16)] if init else []
        assert first_instructions(image) == [image.file_offset(address) for address in wanted]


def test_a_file_without_code(tmp_path):
    path = tmp_path / "data"
    data = Section(".data", constants.SHT_PROGBITS, bytes(997), constants.SHF_ALLOC, 16)
    path.write_bytes(writer.write([data], [Segment(constants.PT_LOAD, constants.PF_R, ".data", ".data")]))
    with Image.open(path) as image:
        assert first_instructions(image) == []
        assert places_of_code(image, PAGE) == []
        assert address_of(image, 0, writable=True) is None
        assert load_bias(image, [], PAGE) == 0


def test_addresses_and_the_bias_of_this_process(compile_c):
    """Every mapping of libc here is where its segments say that it is."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    lines = [line.split() for line in maps if line.endswith("/libc.so.6")]
    mappings = [(int(line[0].partition("-")[0], 16), int(line[2], 16)) for line in lines]
    with Image.open(lines[0][5]) as image:
        bias = load_bias(image, mappings, PAGE)
        assert bias == min(start for start, offset in mappings if offset == 0)
        low, high = span(image, PAGE)
        assert all(low <= start - bias < high for start, _ in mappings)
        (code,) = places_of_code(image, PAGE)
        assert (bias + code[1], code[0]) in mappings
        assert load_bias(image, mappings[1:], PAGE) == bias


def test_where_dynamic_linkers_tell_debuggers(compile_c):
    interpreter = re.search(r"interpreter: (.+)\]", readelf(compile_c(SOURCE), "-l"))[1]
    places = {m[2]: int(m[1], 16) for m in re.finditer(r"([0-9a-f]+) .* (\w+)@@", readelf(interpreter, "--dyn-syms"))}
    with Image.open(interpreter) as image:
        found = notice(image)
        assert image.address(found.file_offset) == places["_dl_debug_state"]
        assert places["_dl_debug_state"] + found.state == places["_r_debug"] + 24
    with Image.open("/lib/ld-musl-x86_64.so.1") as image:
        assert notice(image).state == 0  # its number has no name
    for flags in ([], ["-static"], ["-static-pie"], ["-shared", "-fPIC"]):
        with Image.open(compile_c(SOURCE, *flags)) as image:
            assert notice(image) is None or "-static" in flags[0]


@pytest.mark.parametrize(("linker", "misled"), [("bfd", False), ("lld", True), ("mold", True)])
def test_a_variable_beside_constants(linker, misled, compile_c):
    path = compile_c(SOURCE, f"-fuse-ld={linker}")
    address = int(re.search(r"([0-9a-f]+) +4 OBJECT +\w+ +DEFAULT +\d+ counter", readelf(path, "-s"))[1], 16)
    with Image.open(path) as image:
        offset = image.file_offset(address, writable=True)
        assert address_of(image, offset, writable=True) == address
        # What the code shares with constants, a site in it does.
        assert misleads_kernel(image, offset, first_instructions(image), PAGE) == misled
