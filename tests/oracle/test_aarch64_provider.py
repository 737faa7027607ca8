"""The file of a provider for aarch64, loaded and fired by a C program under qemu."""

import re
import subprocess

import pytest

from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.probes import image
from usdtkit.probes.declaration import ProbeSpec, check_arguments

SYSROOT = "/usr/aarch64-linux-gnu"
KINDS = ["u8", "i16", "u32", "f32", "bool", "str", "i64", "json", "bytes", "f64", "i8"]


@pytest.fixture
def built(tmp_path):
    specs = [
        ProbeSpec("twelve", "", check_arguments("x", {f"a{n}": kind for n, kind in enumerate(KINDS)})),
        ProbeSpec("none", "", ()),
        ProbeSpec("also", "", check_arguments("x", {f"a{n}": "u64" for n in range(12)})),
    ]
    path = tmp_path / "shop.so"
    path.write_bytes(image.build("shop", specs, machine="aarch64"))
    return path


def test_it_loads_and_every_operand_is_where_the_note_says(built, compile_c):
    program = compile_c("fire_aarch64.c", "-O1", compiler="aarch64-linux-gnu-gcc")
    names = ["twelve", "none", "also"]
    command = ["qemu-aarch64", "-L", SYSROOT, program, built, *[f"shop_{name}" for name in names]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(built) as file:
        probes = {probe.name: probe for probe in read_probes(file)}
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        _, address, instruction, *seen = line.split()
        (site,) = probes[name].sites
        assert (int(address, 16), instruction) == (site.address, "d503201f")
        # x0…x7, then the stack
        places = {f"x{n}": int(value) for n, value in enumerate(seen[:8])}
        places |= {("sp", 8 * n): int(value) for n, value in enumerate(seen[8:])}
        read = [
            places[operand.base if operand.kind == "register" else (operand.base, operand.value)]
            for operand in site.operands
        ]
        assert read == list(range(1, len(read) + 1))
        assert len(read) == sum(2 if argument.type == "bytes" else 1 for argument in probes[name].arguments)


def test_readelf_agrees(built):
    text = subprocess.run(["readelf", "-nW", built], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"Name: (\S+)\s+Location: (\S+), .*\s+Arguments: (.*)", text) == [
        (
            "twelve",
            "0x0000000000010000",
            "1@x0 -2@x1 4@x2 4@x3 1@x4 8@x5 -8@x6 8@x7 8@[sp, 0] 8@[sp, 8] 8@[sp, 16] -1@[sp, 24]",
        ),
        ("none", "0x0000000000010010", ""),
        (
            "also",
            "0x0000000000010020",
            " ".join([f"8@x{n}" for n in range(8)] + [f"8@[sp, {8 * n}]" for n in range(4)]),
        ),
    ]
