"""Whatever the bytes, the reader answers or raises an error of ours, and never anything else."""

import logging
import string

import pytest
from elffiles import ProbeSpec, big_endian_32, note, usdt_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usdtkit.elf.arguments import MACHINES, parse, split
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import functions, indirect_functions
from usdtkit.errors import UsdtkitError
from usdtkit.probes.image import build

SEEDS = [
    build("shop", [ProbeSpec("order__start", "An order.", (("id", "u64"), ("body", "bytes")))]),
    build("shop", [ProbeSpec(f"p{n}", "", (("id", "u8"),)) for n in range(7)], machine="aarch64"),
    usdt_file(
        lambda layout: note(layout, "a", "b", "8@counter(%rip) 8@8(%rax,%rbx,4)", semaphore=1) * 3, metadata=b"{}"
    ),
    big_endian_32(b"-4@%r3"),
]
INTERESTING = [0, 1, 4, 8, 0x7F, 0x80, 0xFF]


def read_all(path):
    with Image.open(path) as image:
        size = path.stat().st_size
        probes = read_probes(image)
        for site in (site for probe in probes for site in probe.sites):
            assert 0 <= site.file_offset < size
            assert 0 <= site.semaphore_offset < size
            assert len(site.operands) == len(split(site.arguments_text))
        for probe in probes:
            assert len(probe.arguments) <= max(len(site.operands) for site in probe.sites)
        for function in [
            *functions(image, "*", "main"),
            *functions(image, "*order*"),
            *indirect_functions(image, "?*"),
        ]:
            assert 0 <= function.file_offset < size


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(SEEDS)))
    table = int.from_bytes(data[40:48], "little") if data[4] == 2 else int.from_bytes(data[32:36], "big")
    anywhere = st.integers(0, len(data) - 1)
    headers = st.one_of(st.integers(0, 200), st.integers(table, len(data) - 1))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.one_of(anywhere, headers))
        for offset in range(draw(st.sampled_from([1, 1, 2, 4, 8]))):
            if at + offset < len(data):
                data[at + offset] = draw(st.one_of(st.sampled_from(INTERESTING), st.integers(0, 255)))
    if draw(st.integers(0, 9)) == 0:
        del data[draw(anywhere) :]
    return bytes(data)


@given(damaged())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    try:
        read_all(path)
    except UsdtkitError as error:
        assert error.message.startswith(str(path))


def test_the_seeds_themselves_are_read(tmp_path):
    for data in SEEDS:
        path = tmp_path / "file"
        path.write_bytes(data)
        read_all(path)


SIZES = st.sampled_from(["", "8@", "-4@", "1@", "4f@", "8f@", "3@", "99999@", "@", "--8@"])
NAMES = [
    "rax",
    "eax",
    "ah",
    "r8d",
    "xmm0",
    "rip",
    "fs",
    "x0",
    "w1",
    "sp",
    "xzr",
    "v0",
    "counter",
    "9" * 30,
    "-5",
    "0x10",
]
PIECES = st.sampled_from([*NAMES, *(f"%{name}" for name in NAMES), *"()[],+-$#:!%@ ", "lsl"])
OPERANDS = st.one_of(st.text(string.printable + "é\0٣", max_size=60), st.builds("".join, st.lists(PIECES, max_size=9)))
TEXTS = st.lists(st.builds("{}{}".format, SIZES, OPERANDS), max_size=5).map(" ".join)


@given(TEXTS, st.sampled_from([*MACHINES, "machine-997"]), st.integers(0, 2**64 - 1))
@settings(max_examples=1000, deadline=None)
def test_any_argument_string_gives_operands_in_order(text, machine, address):
    operands = parse(text, machine, site_address=address, resolve_symbol={"counter": 2**64 - 1}.get)
    assert [operand.text for operand in operands] == split(text)
    assert "".join("".join(operand.text for operand in operands).split()) == "".join(text.split())
    for operand in operands:
        assert operand.size in (1, 2, 4, 8)
        assert -(2**63) <= operand.value < 2**64
        assert (operand.kind == "unreadable") == bool(operand.reason)
        assert operand.kind != "register" or operand.base
