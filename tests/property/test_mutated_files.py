"""Twenty thousand real files, each damaged in one of the ways that files are damaged, or made to be: an answer or an
ElfError, in less than a second and 200 MB.
"""

import logging
import os
import random
import resource
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from elffiles import ProbeSpec

from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.sites import check, cost
from usdtkit.elf.symbols import functions, indirect_functions
from usdtkit.errors import ElfError, UnsupportedError, UsageError
from usdtkit.probes.image import build
from usdtkit.unwind.cpython import build_of

FILES = 20_011
SECONDS, BYTES = 1, 200 << 20
EXTREMES = [0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
SOURCE = """
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
unsigned short lab_one_semaphore __attribute__((section(".probes")));
unsigned short lab_two_semaphore __attribute__((section(".probes")));
int counter = 997;
int work(int n, char *text) { STAP_PROBE3(lab, one, n, text, counter); STAP_PROBE2(lab, two, n + 1, 5); return n; }
int more(int n) { STAP_PROBE1(lab, two, n); return work(n, 0); }
/* As in a file with CPython. */
struct { char cookie[8]; long version, words[80]; } _PyRuntime = {"xdebugpy", 0x030d00f0, {0, 283320, 608, 632}};
int _PyEval_EvalFrameDefault(int n) { return n > 7 ? work(n, 0) : more(n); }
"""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Small libraries of four machines, stripped ones (symbols packed, or linked), a provider file, Debian's libdl."""
    folder = tmp_path_factory.mktemp("seeds")
    include = folder / "sys"
    include.mkdir()
    for header in ("sdt.h", "sdt-config.h"):
        (include / header).write_bytes(Path("/usr/include/x86_64-linux-gnu/sys", header).read_bytes())
    found = [build("shop", [ProbeSpec("order", "An order.", (("id", "u64"), ("body", "bytes")))])]
    flags = ["-xc", "-", "-I", folder, "-O1", "-shared", "-fPIC", "-nostdlib", "-Wl,-z,noseparate-code,--build-id"]
    for compiler in ("gcc", "i686-linux-gnu-gcc", "powerpc64le-linux-gnu-gcc", "s390x-linux-gnu-gcc"):
        path = folder / compiler
        subprocess.run([compiler, *flags, "-o", path], input=SOURCE, text=True, check=True)
        found.append(path.read_bytes())
    packed = folder / "packed.xz"
    subprocess.run(f"xz --stdout {folder / 'gcc'} > {packed}", shell=True, check=True)
    for options in (["--add-section", f".gnu_debugdata={packed}"], ["--add-gnu-debuglink", folder / "gcc"]):
        subprocess.run(["objcopy", "--strip-all", *options, folder / "gcc", folder / "stripped"], check=True)
        found.append((folder / "stripped").read_bytes())
    found.append(Path("/usr/lib/x86_64-linux-gnu/libdl.so.2").read_bytes())
    return found


class Damage:
    """Ways to damage a file: each a method that changes `data` in place."""

    def __init__(self, chance, seed):
        self.chance, self.data = chance, bytearray(seed)
        self.wide, self.order = seed[4] == 2, "<" if seed[5] == 1 else ">"
        self.size = 64 if self.wide else 40
        at, count = (40, 60) if self.wide else (32, 48)
        self.table = struct.unpack_from(self.order + ("Q" if self.wide else "I"), seed, at)[0]
        self.count = struct.unpack_from(self.order + "H", seed, count)[0]

    def flip(self):
        for _ in range(self.chance.choice([1, 1, 2, 8, 64])):
            self.data[self.chance.randrange(len(self.data))] ^= 1 << self.chance.randrange(8)

    def truncate(self):
        del self.data[self.chance.randrange(len(self.data)) :]

    def extreme(self, start=0, end=None):
        """A field of 1 to 8 bytes between the offsets gets a value at the edge of what it holds, or moves a little."""
        size = self.chance.choice([1, 2, 4, 4, 8, 8])
        last = min(end if end is not None else len(self.data), len(self.data)) - size
        if start > last:
            return
        at = self.chance.randrange(start, last + 1) // size * size
        old = int.from_bytes(self.data[at : at + size], "little" if self.order == "<" else "big")
        new = self.chance.choice([*EXTREMES, old + 1, old - 1, old + 4, len(self.data), len(self.data) - old])
        self.data[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little" if self.order == "<" else "big")

    def header(self):
        self.extreme(0, 64 if self.wide else 52)

    def program_header(self):
        self.extreme(64 if self.wide else 52, 600)

    def section_header(self):
        self.extreme(self.table, self.table + self.size * self.count)

    def overlap(self):
        """One section takes the place of another."""
        first, second = (self.table + self.size * self.chance.randrange(self.count) for _ in range(2))
        if max(first, second) + self.size <= len(self.data):
            self.data[first : first + self.size] = self.data[second : second + self.size]

    def loop(self):
        """The section table, or a section, begins where it ends, or at itself."""
        place = self.table + self.size * self.chance.randrange(self.count)
        field, word = (place + (24 if self.wide else 16), "Q") if self.wide else (place + 16, "I")
        at = self.chance.choice([field, 40 if self.wide else 32])
        value = self.chance.choice([self.table, place, 0, len(self.data) - self.size])
        if at + struct.calcsize(word) <= len(self.data):
            struct.pack_into(self.order + word, self.data, at, value)

    def without_nul(self):
        """The strings of a note, or of a table, lose their ends."""
        at = self.data.find(self.chance.choice([b"stapsdt\0", b"GNU\0", b"\0.text\0", b"lab\0"]))
        if at >= 0:
            end = min(at + self.chance.choice([16, 64, 256]), len(self.data))
            self.data[at:end] = self.data[at:end].replace(b"\0", b"A")

    def note_length(self):
        at = self.data.find(b"stapsdt\0", self.chance.randrange(len(self.data)))
        if at >= 12:
            self.extreme(at - 12, at)


WAYS = [way for way in vars(Damage) if not way.startswith("_")]


def read(data):
    """What the library and `usdtkit list -vv` would read; the number of probes."""
    descriptor = os.memfd_create("damaged")
    try:
        os.write(descriptor, data)
        image = Image("damaged", os.dup(descriptor))
    finally:
        os.close(descriptor)
    with image:
        probes = read_probes(image)
        found = functions(image, "*", aliases=True)
        indirect_functions(image, "m*")
        is_go(image)
        with suppress(UnsupportedError):
            build_of(image)
        for function in found[:8]:
            cost(image, function.file_offset)
            try:
                check(image, function.address + 1)
            except UsageError:
                continue
        for probe in probes:
            probe.to_json(), hash(probe)
        return len(probes)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_the_seeds_are_read(seeds):
    assert [read(seed) for seed in seeds] == [1, 2, 2, 2, 2, 2, 2, 0]


def test_twenty_thousand_damaged_files(seeds):
    chance = random.Random(997)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    answers, refusals, slowest = 0, 0, 0.0
    for _ in range(FILES):
        damage = Damage(chance, chance.choice(seeds))
        for way in chance.choices(WAYS, k=chance.choice([1, 1, 1, 2, 3])):
            if len(damage.data) > 64:
                getattr(damage, way)()
        start = time.process_time()
        try:
            read(bytes(damage.data))
            answers += 1
        except ElfError as error:
            assert error.message.startswith("damaged")
            refusals += 1
        slowest = max(slowest, time.process_time() - start)
    assert answers > FILES // 10
    assert refusals > FILES // 10
    assert slowest < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < BYTES
