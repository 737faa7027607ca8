"""Whatever is in a file, its exits are found or refused, in bounded time, and lie in its code."""

import random
import struct
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usdtkit.elf import constants, writer
from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.elf.unwinding import may_leave
from usdtkit.elf.writer import Section, Segment, Symbol
from usdtkit.errors import ElfError, UnsupportedError, UsdtkitError

SOURCE = """
#include <stdlib.h>
static int table(int n) { switch (n) { case 1: return rand(); case 2: return 5; case 3: return abs(n) + rand();
  case 4: return rand() + 1; case 5: return rand() + n; case 6: abort(); default: return 0; } }
int one(int n) { return n < 2 ? n : one(n - 1) + one(n - 2) + table(n); }
int two(int n) { return one(n + 1); }
void three(void *block) { free(block); }
"""
DAMAGED = 3001
SECONDS = 1


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    found = []
    for compiler in ("gcc", "aarch64-linux-gnu-gcc"):
        path = folder / compiler
        flags = ["-xc", "-", "-O2", "-shared", "-fPIC", "-nostdlib", "-Wl,-z,noseparate-code"]
        subprocess.run([compiler, *flags, "-o", path], input=SOURCE, text=True, check=True)
        found.append(path.read_bytes())
    return found


def read_all(path):
    with Image.open(path) as image:
        finder, frames = ExitFinder(image), CallFrames(image)
        for function in functions(image, "*"):
            try:
                found = finder.find(function)
            except UnsupportedError as error:
                assert error.message
            else:
                assert all(0 <= site.file_offset < image.size for site in found.sites)
            starts = finder.starts(function)
            assert starts is None or all(0 <= at < (function.size or 1 << 20) for at in starts)
            frames.rule(function.address)
        may_leave(image)


def test_damaged_files(seeds, tmp_path):
    """A byte or a number is changed in sections that are read here; most of them hang together."""
    draw = random.Random(997)
    path = tmp_path / "file"
    places = []
    for data in seeds:
        path.write_bytes(data)
        read_all(path)
        with Image.open(path) as image:
            places.append([s for s in image.sections if s.size and s.type not in (0, 8)])
    for _ in range(DAMAGED):
        data, sections = draw.choice([*zip(seeds, places, strict=True)])
        changed = bytearray(data)
        for _ in range(draw.randint(1, 5)):
            section = draw.choice(sections)
            at = section.offset + draw.randrange(section.size)
            value = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
            size = draw.choice([1, 1, 4, 8])
            changed[at : at + size] = bytes([value]) * len(changed[at : at + size])
        path.write_bytes(changed)
        started = time.process_time()
        try:
            read_all(path)
        except UsdtkitError as error:
            assert error.message.startswith(str(path))
        assert time.process_time() - started < SECONDS


def frames_file(path, frames, table):
    text = Section(".text", constants.SHT_PROGBITS, b"\x90\xc3" * 8, constants.SHF_ALLOC | constants.SHF_EXECINSTR, 16)
    extra = [
        Section(".eh_frame", constants.SHT_PROGBITS, frames, constants.SHF_ALLOC, 8),
        Section(".eh_frame_hdr", constants.SHT_PROGBITS, table, constants.SHF_ALLOC, 4),
    ]
    symbols = writer.static_sections([Symbol("start", ".text", 0, 16)])
    segments = [
        Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text"),
        Segment(constants.PT_LOAD, constants.PF_R, ".eh_frame", ".eh_frame_hdr"),
    ]
    path.write_bytes(writer.write([text, *extra, *symbols], segments))


@given(st.binary(max_size=300), st.binary(max_size=80), st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_of_any_bytes(tmp_path, frames, table, has_header):
    path = tmp_path / "file"
    frames_file(path, frames or b"\0", (b"\x01\x1b\x03\x3b" + table) if has_header else table or b"\0")
    with Image.open(path) as image:
        found = CallFrames(image)
        for address in (0, image.section(".text").address, 2**31, 2**64 - 1):
            described = found.covering(address)
            assert described is None or described.start <= address < described.end
            found.rule(address)


@pytest.mark.parametrize(
    "frames",
    [
        bytes(4 << 20),
        struct.pack("<II", 4, 0) * (1 << 19),
        struct.pack("<II", 0xFFFFFFF0, 1) * (1 << 19),
        (struct.pack("<II", 20, 0) + b"\x01zR\0\x01\x78\x10\x01\x1b" + bytes(7)) * (1 << 17),
    ],
    ids=["zeros", "short", "long", "commons"],
)
def test_millions_of_entries_take_no_minute(tmp_path, frames):
    path = tmp_path / "file"
    frames_file(path, frames, b"\0")
    started = time.process_time()
    with Image.open(path) as image:
        assert CallFrames(image).covering(image.section(".text").address) is None
    assert time.process_time() - started < 3


def test_a_function_of_any_size(tmp_path):
    """A symbol may claim more code than there is, or than anything has."""
    path = tmp_path / "file"
    for size in (16, 17, 1 << 20, 1 << 40, 2**64 - 1):
        text = Section(
            ".text", constants.SHT_PROGBITS, b"\x90\xc3" * 8, constants.SHF_ALLOC | constants.SHF_EXECINSTR, 16
        )
        symbols = writer.static_sections([Symbol("start", ".text", 0, size)])
        path.write_bytes(
            writer.write(
                [text, *symbols], [Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text")]
            )
        )
        with Image.open(path) as image:
            (function,) = functions(image, "start")
            finder = ExitFinder(image)
            try:
                assert len(finder.find(function).sites) == 1
                assert size == 16
            except (ElfError, UnsupportedError):
                assert size != 16
                assert finder.starts(function) is None
