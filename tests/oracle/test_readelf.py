"""What is read from real files, against binutils: every note by readelf -n, every function by readelf -s."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from elffiles import ProbeSpec

from usdtkit.elf.arguments import parse, render
from usdtkit.elf.constants import STAPSDT_SECTION
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import functions
from usdtkit.elf.tables import table_of_exports
from usdtkit.probes.image import build
from usdtkit.signatures import known_arguments

REAL = {
    "python": "/usr/bin/python3.11",
    "postgres": "/usr/lib/postgresql/15/bin/postgres",
}
# Debian's packages that bring files with notes, and how many sites there are in them.
PACKAGES = {
    "libruby3.1": 40,
    "libstdc++6": 3,
    "openjdk-17-jre-headless": 531,
    "php8.2-cli": 14,
    "postgresql-15": 71,
    "python3.11-minimal": 8,
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
NOPS = {
    "x86_64": ("90",),
    "i386": ("90",),
    "aarch64": ("1f2003d5",),
    "arm": ("00bf", "0000a0e1", "00f020e3"),
    "ppc64le": ("00000060",),
    "s390x": ("47000000", "0700", "0707"),
    "riscv64": ("13000000", "0100"),
}
TWO_REGISTERS = "a value of 8 bytes in two registers, of which only {} is named"
LINKED = "an address that is only known where the file is loaded"


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
    section = image.section(".probes")
    for probe in probes:
        for site in probe.sites:
            assert image.read(site.file_offset, 4).hex().startswith(NOPS[image.machine])
            if site.semaphore:
                assert site.semaphore_offset == site.semaphore - section.address + section.offset


def files_with_notes(package):
    listed = subprocess.run(["dpkg", "-L", f"{package}:amd64"], capture_output=True, text=True, check=True).stdout
    for path in sorted({Path(line).resolve() for line in listed.splitlines() if Path(line).is_file()}):
        if path.open("rb").read(4) == b"\x7fELF":
            with Image.open(path) as image:
                if image.section(STAPSDT_SECTION):
                    yield path, image


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package(package):
    count = 0
    for path, image in files_with_notes(package):
        probes = read_probes(image, known=known_arguments)
        assert our_notes(probes) == readelf_notes(path)
        check_places(image, probes)
        operands = [operand for probe in probes for site in probe.sites for operand in site.operands]
        assert [operand for operand in operands if operand.kind == "unreadable"] == []
        count += sum(len(probe.sites) for probe in probes)
    assert count >= PACKAGES[package]


@pytest.mark.parametrize(
    ("package", "provider"),
    [
        ("libruby3.1", "ruby"),
        ("libstdc++6", "libstdcxx"),
        ("openjdk-17-jre-headless", "hotspot"),
        ("php8.2-cli", "php"),
        ("postgresql-15", "postgresql"),
        ("python3.11-minimal", "python"),
    ],
)
def test_what_we_know_of_a_provider_fits_the_real_one(package, provider):
    probes = [probe for _, image in files_with_notes(package) for probe in read_probes(image, known=known_arguments)]
    for probe in probes:
        if pairs := known_arguments(provider, probe.name):
            assert [(argument.name, argument.type) for argument in probe.arguments] == list(pairs), probe.spec
    known = [known_arguments(provider, probe.name) is not None for probe in probes]
    assert sum(known) >= 3
    assert sum(known) >= len(known) / 2 or provider == "hotspot"  # half of whose probes are of another provider


GCC = {
    "": (("-O2",), ("-O3", "-fno-omit-frame-pointer", "-static")),
    "i686-linux-gnu-": (("-O2",), ("-O2", "-no-pie", "-fno-pie")),
    **{f"{target}-": (("-O2",),) for target in ("aarch64-linux-gnu", "arm-linux-gnueabihf", "powerpc64le-linux-gnu")},
    **{f"{target}-": (("-O2",),) for target in ("riscv64-linux-gnu", "s390x-linux-gnu")},
}
# clang 14 knows no offsettable memory on riscv64, which sys/sdt.h asks for
CLANG = [target.removesuffix("-") for target in GCC if not target.startswith("riscv64")]
BUILDS = [
    *((f"{target}gcc", flags) for target, more in GCC.items() for flags in (("-O0",), *more)),
    *((f"{target}gcc", ("-O2", "-shared", "-fPIC")) for target in GCC),
    *((f"{target}gcc", ("-O2", "-no-pie")) for target in GCC),
    *(
        ("clang", (level, *([f"--target={target}"] if target else [])))
        for target in CLANG
        for level in ("-O0", "-O2", "-O1 -no-pie -fno-pie")
    ),
]


@pytest.mark.parametrize(
    ("compiler", "flags"), BUILDS, ids=lambda part: part if isinstance(part, str) else "".join(part)
)
def test_compiled_forms(compile_c, tmp_path, compiler, flags):
    include = tmp_path / "sys"
    include.mkdir()
    for header in ("sdt.h", "sdt-config.h"):
        (include / header).write_bytes(Path("/usr/include/x86_64-linux-gnu/sys", header).read_bytes())
    path = compile_c(FORMS, "-I", str(tmp_path), *" ".join(flags).split(), compiler=compiler)
    with Image.open(path) as image:
        probes = read_probes(image)
        assert our_notes(probes) == readelf_notes(path)
        check_places(image, probes)
        machine = image.machine
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
    pointer = "u64" if image.bits == 64 else "u32"
    assert [argument.type for argument in found["widths"].arguments] == ["u8", "i16", "u32", "u64", pointer]
    for operand in (operand for probe in probes for site in probe.sites for operand in site.operands):
        if operand.kind == "unreadable":
            assert machine in ("i386", "arm")
            assert operand.reason in (
                TWO_REGISTERS.format(operand.text[2:]),
                "an address that is only known where the file is loaded",
            )
        else:
            again = parse(render(operand, machine), machine, site_address=0, resolve_symbol={}.get)
            assert replace(again[0], text=operand.text) == operand


def test_our_own_provider_files(tmp_path):
    arguments = [(f"a{number}", "u64") for number in range(12)]
    for machine in ("x86_64", "aarch64"):
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
            if ".cold" not in name:
                found.add((int(fields[1], 16), name.partition("@")[0]))
    return found


@pytest.mark.parametrize(
    "path", ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", *REAL.values()]
)
def test_functions_of_real_files(path):
    with Image.open(path) as image:
        found = functions(image, "*")
        theirs = readelf_functions(path)
        with_debug = Path("/usr/lib/debug/.build-id", image.build_id[:2], f"{image.build_id[2:]}.debug")
        if with_debug.exists():
            theirs |= readelf_functions(with_debug)
        ours = {(function.address, function.name) for function in found}
        assert ours <= theirs
        # left out: those whose first instruction the kernel mistakes for another
        assert all("evex" in name or "avx512" in name for _, name in theirs - ours)
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


@pytest.mark.parametrize("path", ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/python3.11", "/bin/true"])
def test_names_of_exports_pass_the_filter_of_the_loader(path):
    """Every name that the file defines for others, and few of those that it does not."""
    listed = subprocess.check_output(["readelf", "-W", "--dyn-syms", path], text=True)
    found = re.findall(r" (?:GLOBAL|WEAK) +DEFAULT +(\d+|ABS) ([^@\s]+)", listed)
    with Image.open(path) as image:
        assert [name for _, name in found if table_of_exports(image, name) is None] == []
        strange = [f"usdtkit_{number}" for number in range(997)]
        assert sum(table_of_exports(image, name) is not None for name in strange) < 997 // 4
