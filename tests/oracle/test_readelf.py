"""What is read from real files, against binutils: every note by readelf -n, every function by readelf -s."""

import re
import subprocess
from pathlib import Path

import pytest
from elffiles import ProbeSpec

from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import functions
from usdtkit.probes.image import build
from usdtkit.providers import known_arguments

REAL = {
    "python": "/usr/bin/python3.11",
    "libstdc++": "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "libruby": "/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1",
    "postgres": "/usr/lib/postgresql/15/bin/postgres",
    **{f"libjvm-{path.parts[4]}": path for path in Path("/usr/lib/jvm").glob("*/lib/server/libjvm.so")},
}

FORMS = """
#include <stdint.h>
#include <stdlib.h>
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
#define SEMAPHORE(name) unsigned short forms_##name##_semaphore __attribute__((section(".probes"), used))
SEMAPHORE(widths); SEMAPHORE(global); SEMAPHORE(local); SEMAPHORE(many); SEMAPHORE(none);
struct row { uint64_t id; const char *name; int8_t tiny; uint16_t small; int32_t list[16]; };
int counter = 997;
static struct row table[4];
__attribute__((noinline)) int work(
    struct row *row, long at, uint8_t byte, int16_t half, unsigned word, char *text, int seventh, long eighth)
{
    volatile int32_t local[8] = {1, 2, 3};
    DTRACE_PROBE5(forms, widths, byte, half, word, row->id, text);
    DTRACE_PROBE6(forms, global, counter, table[1].small, &counter, row->list[at], local[at & 7], eighth);
    if (at & 1)
        DTRACE_PROBE4(forms, local, 5, -5, 0x123456789abcL, 'c');
    else
        DTRACE_PROBE4(forms, local, seventh, eighth, row->tiny, row->small);
    DTRACE_PROBE12(forms, many, at, byte, half, word, row, text, seventh, eighth, at + 1, word + 2, *local, &local[2]);
    return local[at & 7] + byte + half + word + seventh;
}
int main(int count, char **arguments)
{
    struct row row = {count, arguments[0], -1, 65535, {0}};
    DTRACE_PROBE(forms, none);
    return work(&row, count, count, -count, count * 3, arguments[0], 7, 8L * count) == -1;
}
"""
NOPS = {"x86_64": b"\x90", "aarch64": bytes.fromhex("1f2003d5")}


def readelf_notes(path):
    text = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(
        r"Provider: (.*)\n\s+Name: (.*)\n"
        r"\s+Location: 0x(\w+), Base: 0x(\w+), Semaphore: 0x(\w+)\n\s+Arguments: ?(.*)",
        text,
    )
    return sorted((provider, name, *(int(n, 16) for n in numbers), args) for provider, name, *numbers, args in found)


def our_notes(probes):
    return sorted(
        (probe.provider, probe.name, site.address, site.base, site.semaphore, site.arguments_text)
        for probe in probes
        for site in probe.sites
    )


def check_places(image, probes):
    """Every file offset holds a nop; semaphores lie where the section table says .probes is."""
    nop, section = NOPS[image.machine], image.section(".probes")
    for probe in probes:
        for site in probe.sites:
            assert image.read(site.file_offset, len(nop)) == nop
            if site.semaphore:
                assert site.semaphore_offset == site.semaphore - section.address + section.offset


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    with Image.open(REAL[name]) as image:
        probes = read_probes(image, known=known_arguments)
        assert our_notes(probes) == readelf_notes(REAL[name])
        assert probes
        check_places(image, probes)
        operands = [operand for probe in probes for site in probe.sites for operand in site.operands]
        assert [operand for operand in operands if operand.kind == "unreadable"] == []


@pytest.mark.parametrize(("name", "provider"), [("python", "python"), ("postgres", "postgresql")])
def test_what_we_know_of_a_provider_fits_the_real_one(name, provider):
    with Image.open(REAL[name]) as image:
        probes = read_probes(image, known=known_arguments)
    for probe in probes:
        if pairs := known_arguments(provider, probe.name):
            assert [(argument.name, argument.type) for argument in probe.arguments] == list(pairs), probe.spec
    assert sum(known_arguments(provider, probe.name) is not None for probe in probes) >= 8


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", ("-O0",)),
        ("gcc", ("-O2",)),
        ("gcc", ("-O2", "-no-pie")),
        ("gcc", ("-O3", "-fno-omit-frame-pointer", "-static")),
        ("gcc", ("-O2", "-shared", "-fPIC")),
        ("aarch64-linux-gnu-gcc", ("-O0",)),
        ("aarch64-linux-gnu-gcc", ("-O2",)),
        ("aarch64-linux-gnu-gcc", ("-O2", "-no-pie")),
    ],
)
def test_compiled_forms(compile_c, tmp_path, compiler, flags):
    include = tmp_path / "sys"
    include.mkdir()
    for header in ("sdt.h", "sdt-config.h"):
        (include / header).write_bytes(Path("/usr/include/x86_64-linux-gnu/sys", header).read_bytes())
    path = compile_c(FORMS, "-I", str(tmp_path), *flags, compiler=compiler)
    with Image.open(path) as image:
        probes = read_probes(image)
        assert our_notes(probes) == readelf_notes(path)
        check_places(image, probes)
    found = {probe.name: probe for probe in probes}
    assert {name: len(probe.arguments) for name, probe in found.items()} == {
        "widths": 5,
        "global": 6,
        "local": 4,
        "many": 12,
        "none": 0,
    }
    assert len(found["local"].sites) == 2
    assert len({site.semaphore_offset for probe in probes for site in probe.sites} - {0}) == 5
    assert [argument.type for argument in found["widths"].arguments] == ["u8", "i16", "u32", "u64", "u64"]
    reasons = [operand.reason for probe in probes for site in probe.sites for operand in site.operands]
    assert set(reasons) == {""}


def test_our_own_provider_files(tmp_path):
    arguments = [(f"a{number}", "u64") for number in range(12)]
    for machine in NOPS:
        path = tmp_path / machine
        path.write_bytes(
            build("shop", [ProbeSpec(f"p{n}", "", tuple(arguments[:n])) for n in range(13)], machine=machine)
        )
        with Image.open(path) as image:
            probes = read_probes(image)
            check_places(image, probes)
        assert our_notes(probes) == readelf_notes(path)
        text = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
        assert f"Build ID: {probes[0].build_id}\n" in text


def readelf_functions(path):
    text = subprocess.run(["readelf", "-sW", path], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in text.splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[3] == "FUNC" and fields[6] != "UND" and int(fields[1], 16):
            name = re.sub(r" \[.*\]$| \(\d+\)$", "", fields[7])
            found.add((int(fields[1], 16), name.partition("@")[0]))
    return found


@pytest.mark.parametrize("path", ["/usr/lib/x86_64-linux-gnu/libc.so.6", *list(REAL.values())[:4]])
def test_functions_of_real_files(path):
    with Image.open(path) as image:
        found = functions(image, "*")
        assert {(function.address, function.name) for function in found} == readelf_functions(path)
        assert len(found) == len({(function.address, function.name) for function in found})
        name = found[len(found) // 2].name
        assert functions(image, name) == [function for function in found if function.name == name]
        assert functions(image, "*get*") == [function for function in found if "get" in function.name]


def test_functions_of_an_unstripped_program(compile_c):
    path = compile_c(FORMS, "-O0")
    with Image.open(path) as image:
        assert {(function.address, function.name) for function in functions(image, "*")} == readelf_functions(path)
        (work,) = functions(image, "work")
    assert work.size > 100
