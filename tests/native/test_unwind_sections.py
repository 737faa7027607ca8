"""The reader of call frame information under the address and undefined-behaviour sanitisers: twenty thousand damaged
sections, and sections that are made to take long."""

import errno
import random
import struct
import subprocess
from pathlib import Path

import cfi
import pytest

from usdtkit.elf.constants import PF_X, PT_LOAD
from usdtkit.elf.image import Image

ROOT = Path(__file__).parents[2]
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
SECTIONS = 20_011
ADDRESS = 0x100000  # of sections that are made here
SECONDS = 1
EH_FRAME, EH_FRAME_ENDED, DEBUG_FRAME = range(3)
SOURCE = """
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
int sorted(int n, ...) { int many[n]; memset(many, n, sizeof many); qsort(many, n, sizeof n, compare); return many[0]; }
int one(int n) { return n < 2 ? n : one(n - 1) + one(n - 2) + sorted(n); }
void two(char *text) { char large[5000]; strncpy(large, text, sizeof large); if (one(large[0])) abort(); }
"""
# Bytes that mean something: lengths, instructions, and the ends of numbers of varying length.
TELLING = [0, 1, 2, 3, 4, 6, 7, 9, 0x0A, 0x0B, 0x0C, 0x0E, 0x0F, 0x10, 0x16, 0x2E, 0x41, 0x7F, 0x80, 0x86, 0xC6, 0xFF]


@pytest.fixture(scope="module")
def read(compile_c):
    """read([(kind, aarch64, address, lowest, start, end, section)]) -> (result, rows, counted, microseconds) each."""
    sanitise = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = Path(__file__).with_name("unwind.c").read_text()
    reader = sorted((ROOT / "native").glob("unwind*.c"))
    binary = compile_c(source, "-O1", "-Wextra", "-I", str(ROOT / "native"), *sanitise, *reader)

    def run(sections):
        given = b"".join(b"%d %d %d %d %d %d %d\n" % (*head, len(data)) + data for *head, data in sections)
        done = subprocess.run([binary], input=given, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]

    return run


def section_of(path, name, most=1 << 20):
    """The call frame information of a file, or whole entries of its beginning, as `read` takes it."""
    with Image.open(path) as image:
        section = image.section(name)
        data, until = image.data(section), 0
        while until + 4 <= len(data) and (length := struct.unpack_from("<I", data, until)[0]) and until + length < most:
            until += 4 + length
        end = max(s.address + s.file_size for s in image.segments if s.type == PT_LOAD and s.flags & PF_X)
        kind = DEBUG_FRAME if name == ".debug_frame" else EH_FRAME
        return kind, int(image.machine == "aarch64"), section.address, 0, 0, end, data[:until]


def every_form():
    """A section with all forms of rules that become rows."""
    program = b"".join(
        [
            *(cfi.advance(4), cfi.block(cfi.DEF_CFA_EXPRESSION, expression=bytes.fromhex("770880003f1a3b2a332422"))),
            *(cfi.advance(4), cfi.block(cfi.DEF_CFA_EXPRESSION, expression=bytes.fromhex("760806"))),
            *(cfi.advance(4), cfi.block(cfi.DEF_CFA_EXPRESSION, expression=bytes.fromhex("77c000062308"))),
            *(
                cfi.advance(4),
                cfi.op(cfi.DEF_CFA, 10, 0),
                cfi.block(cfi.EXPRESSION, 6, expression=bytes.fromhex("7600")),
            ),
            *(cfi.advance(4), cfi.op(cfi.REMEMBER), cfi.op(cfi.UNDEFINED, 16), cfi.advance(4), cfi.op(cfi.RESTORE)),
            *(cfi.advance(4), cfi.op(cfi.DEF_CFA, 3, 8), cfi.advance(4), cfi.op(cfi.DEF_CFA, 6, 16), cfi.saved(6, 2)),
        ]
    )
    section = cfi.described(cfi.common(), ADDRESS, 0x1000, 0x40, program)
    section = cfi.described(section, ADDRESS, 0x1100, 0x40, cfi.advance(1) + cfi.op(cfi.DEF_CFA_OFFSET, 16))
    return EH_FRAME, 0, ADDRESS, 0, 0x1000, 0x2000, section


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    found = [every_form(), section_of(f"{LIBRARIES}/libc.so.6", ".eh_frame", 11_000)]
    for compiler in ("gcc", "aarch64-linux-gnu-gcc"):
        for section, flags in (
            (".eh_frame", ["-O2", "-fasynchronous-unwind-tables"]),
            (".debug_frame", ["-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]),
        ):
            path = folder / f"{compiler}{section}"
            command = [compiler, "-xc", "-", "-shared", "-fPIC", "-nostartfiles", "-Wl,-z,noseparate-code", *flags]
            subprocess.run([*command, "-o", path], input=SOURCE, text=True, check=True)
            found.append(section_of(path, section))
    return found


def damaged(chance, data):
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at, size = chance.randrange(len(data)), chance.choice([1, 1, 1, 2, 4, 8])
        way = chance.randrange(6)
        if way == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            data[at : at + size] = bytes([chance.choice([0, 0x7F, 0x80, 0xFF])]) * len(data[at : at + size])
        elif way == 2:
            data[at : at + size] = bytes(chance.choices(TELLING, k=len(data[at : at + size])))
        elif way == 3:  # part of it lies somewhere else
            source, length = chance.randrange(len(data)), chance.choice([4, 8, 24, 64])
            length = min(length, len(data) - source, len(data) - at)
            data[at : at + length] = data[source : source + length]
        elif way == 4 and chance.random() < 0.1:
            del data[max(at, 16) :]
        else:
            number = struct.unpack_from("<I", data, at // 4 * 4)[0] if at // 4 * 4 + 4 <= len(data) else 0
            data[at // 4 * 4 : at // 4 * 4 + 4] = struct.pack("<I", (number + chance.choice([-4, -1, 1, 4])) % 2**32)
    return bytes(data)


def test_the_seeds_are_read(read, seeds):
    assert [found[0] for found in read(seeds)] == [0] * len(seeds)
    rows = [found[1] for found in read(seeds)]
    assert rows[0] == 14
    assert min(rows) >= 10
    assert [found[2] for found in read(seeds)] == [1, 2, 0, 0, 0, 0]  # from rbx; and vfork's return address


def test_twenty_thousand_damaged_sections(read, seeds):
    chance = random.Random(997)
    sections = []
    for _ in range(SECTIONS):
        *head, data = chance.choice(seeds)
        if head[0] == EH_FRAME and chance.random() < 0.1:
            head[0] = EH_FRAME_ENDED
        sections.append((*head, damaged(chance, data)))
    results = read(sections)
    assert len(results) == SECTIONS
    assert {result for result, *_ in results} == {0, -errno.EINVAL}
    assert sum(result == 0 for result, *_ in results) > SECTIONS // 4
    assert sum(result != 0 for result, *_ in results) > SECTIONS // 20
    assert sum(counted > 0 for _, _, counted, _ in results) > SECTIONS // 20
    assert max(took for *_, took in results) < SECONDS * 1_000_000


def many_rows(size):
    """One range whose rule changes at each byte."""
    step = cfi.advance(1) + cfi.op(cfi.DEF_CFA_OFFSET, 16) + cfi.advance(1) + cfi.op(cfi.DEF_CFA_OFFSET, 24)
    return cfi.described(cfi.common(), ADDRESS, 0x1000, 0x70000000, step * (size // len(step)))


def many_ranges(size, instructions):
    """Ranges that overlap, by a common part with many instructions."""
    section = cfi.common(b"\x0c\x07\x08\x90\x01" + cfi.op(cfi.DEF_CFA_OFFSET, 8) * 20_000)
    described = cfi.described(b"", 0, 0, 4096, instructions)
    back = bytearray(described * (size // len(described)))
    for at in range(0, len(back), len(described)):
        struct.pack_into("<Ii", back, at + 4, len(section) + at + 4, 0x1000 - ADDRESS - len(section) - at - 8)
    return section + back


@pytest.mark.parametrize(
    ("section", "result", "rows"),
    [
        (bytes(16 << 20), 0, 1),
        (struct.pack("<II", 4, 0) * (1 << 21), -errno.E2BIG, 0),
        (struct.pack("<II", 4, 1) * (1 << 21), 0, 1),
        (struct.pack("<II", 0xFFFFFFF0, 1) * (1 << 20), -errno.EINVAL, 0),
        (cfi.common() * (1 << 17), 0, 1),
        (cfi.common() * ((1 << 17) + 1), -errno.E2BIG, 0),
        (many_rows(3 << 20), 0, 1 << 20),
        (many_rows(52 << 20), -errno.E2BIG, 0),
        (many_ranges(16 << 20, b""), 0, 3),
        (many_ranges(16 << 20, cfi.op(cfi.REMEMBER) * 2000), 0, 3),
        (many_ranges(32 << 20, b""), -errno.E2BIG, 0),
    ],
    ids=[
        "zeros",
        "short",
        "ranges of none",
        "long",
        "commons",
        "more",
        "rows",
        "too many",
        "overlaps",
        "deep",
        "ranges",
    ],
)
def test_large_sections_take_no_minute(read, section, result, rows):
    ((found, count, _, took),) = read([(EH_FRAME, 0, ADDRESS, 0, 0x1000, 0x70001000, section)])
    assert found == result
    assert rows <= count <= rows + 3
    assert took < 5 * SECONDS * 1_000_000
