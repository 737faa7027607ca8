"""Go programs whose table of functions, or description, is damaged: an answer or an ElfError, in a moment."""

import random
import time

import pytest
from programs.golang import DEBIAN, NEWEST, STRIPPED

from usdtkit.elf import golang, pclntab
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable
from usdtkit.elf.symbols import functions
from usdtkit.errors import ElfError

TABLES, SECONDS = 397, 1
EXTREMES = [0, 1, 4, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
OLD = "esbuild-linux-64@0.3.0", "esbuild-linux-64@0.9.7"


@pytest.fixture(scope="module")
def seeds(build_go, shipped, tmp_path_factory):
    """A program of each format, and one that was linked by gcc."""
    paths = [build_go(STRIPPED, compiler=compiler) for compiler in (DEBIAN, NEWEST)]
    return [*paths, build_go(STRIPPED, "-buildmode=pie", cgo=True), *map(shipped, OLD)]


def damage(chance, data, low, high):
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(low, high)
        size = chance.choice([1, 4, 8])
        value = chance.choice([*EXTREMES, chance.getrandbits(64), int.from_bytes(data[at : at + size], "little") + 1])
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def test_damaged_tables(seeds, tmp_path):
    chance = random.Random(997)
    answered = refused = 0
    path = tmp_path / "damaged"
    for seed in seeds:
        data = bytearray(seed.read_bytes())
        with Image.open(seed) as image:
            section = golang.table_section(image)
            table = pclntab.find(image)
            start = data.index(min(golang.TABLE_FORMATS).to_bytes(4, "little")) if section is None else section.offset
            names = data.index(b"\0runtime.", start) if table.version > 2 else start + 16 * len(table)
        size = section.size if section is not None else 1 << 18
        for number in range(TABLES // len(seeds) + 1):
            broken = bytearray(data)
            # The header, the list of functions, what each has, and the rest.
            low, high = [(start, start + 72), (start, names), (start, start + size)][number % 3]
            damage(chance, broken, low, high)
            path.write_bytes(broken)
            begun = time.process_time()
            try:
                with Image.open(path) as image:
                    found = functions(image, "main.*")
                    lookup = SymbolTable(image)
                    for function in found[:29]:
                        lookup.find(function.address)
                        lookup.source(function.address + 5)
                answered += 1
            except ElfError as error:
                assert str(path) in error.message
                refused += 1
            assert time.process_time() - begun < SECONDS
    assert answered > TABLES / 4
    assert refused > TABLES / 16


def test_damaged_descriptions(seeds, tmp_path):
    chance = random.Random(991)
    path = tmp_path / "damaged"
    for seed in seeds:
        data = seed.read_bytes()
        with Image.open(seed) as image:
            section = image.section(".go.buildinfo")
        for _ in range(29):
            broken = bytearray(data)
            damage(chance, broken, section.offset, section.offset + min(section.size, 256))
            path.write_bytes(broken)
            with Image.open(path) as image:
                build = golang.build(image)
                assert all(isinstance(part, str) and len(part) <= 256 for part in build)
                assert golang.goid_offset(image) in (0, 152, 160)
