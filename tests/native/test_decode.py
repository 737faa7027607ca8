"""The decoder under the address and undefined-behaviour sanitisers, on random bytes and on damaged code."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from usdtkit._ffi import ffi, lib
from usdtkit.elf.image import Image

ROOT = Path(__file__).parents[2]
DONE, UNDEFINED, VENDOR, FULL = range(4)
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
# Prefixes and opcodes that more bytes belong to, so that random bytes get far.
TELLING = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x48, 0x4F, 0x0F, 0x38, 0x3A, 0xC4, 0xC5, 0x62, 0x8F, 0xE8, 0xC3, 0xFF, 0x04]
BYTE = st.one_of(st.sampled_from(TELLING), st.integers(0, 255))
CODE = st.lists(BYTE, min_size=1, max_size=40).map(bytes)


@pytest.fixture(scope="module")
def decode(compile_c):
    """decode(blocks, machine="x86_64", room=64) -> (end, stopped, falls through, begins, flows) of each."""
    sanitise = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-missing-field-initializers"]
    source = Path(__file__).with_name("decode.c").read_text()
    binary = compile_c(source, "-O1", "-Wextra", "-I", str(ROOT / "native"), *sanitise)

    def run(blocks, machine="x86_64", room=64):
        given = b"".join(b"%d\n" % len(block) + block for block in blocks)
        done = subprocess.run([binary, machine, str(room)], input=given, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        found = []
        for part in done.stdout.decode().split("\n\n")[:-1]:
            head, begins, *flows = part.split("\n")
            end, stopped, falls = map(int, head.split())
            found.append((end, stopped, falls, [*map(int, begins)], [tuple(map(int, f.split())) for f in flows]))
        return found

    return run


def check(code, end, stopped, begins, flows):
    """What holds of any bytes."""
    assert stopped <= len(code)
    assert (end == DONE) == (stopped == len(code))
    assert not any(begins[stopped + 1 :])
    starts = [at for at, mark in enumerate(begins) if mark == 1]
    ends = [*starts[1:], stopped] if starts else []
    assert not starts or starts[0] == 0
    assert all(0 < following - at <= 15 for at, following in zip(starts, ends, strict=True))
    lengths = dict(zip(starts, ends, strict=True))
    assert all(lengths[at] == at + length for at, length, *_ in flows)
    assert all(code[at - 1] == 0xF0 for at, mark in enumerate(begins) if mark == 2)


@given(st.lists(CODE, min_size=1, max_size=50))
@example([b"\xf0"])
@example([b"\x62\xf1\x7c"])
@example([b"\x66" * 15, b"\x66" * 14 + b"\x90"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes(decode, blocks):
    for code, (end, stopped, _, begins, flows) in zip(blocks, decode(blocks), strict=True):
        assert end in (DONE, UNDEFINED, VENDOR)
        check(code, end, stopped, begins, flows)


@given(st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=50))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_words(decode, blocks):
    for code, (end, stopped, _, begins, _) in zip(blocks, decode(blocks, "aarch64"), strict=True):
        assert (end, stopped) == ((DONE, len(code)) if len(code) % 4 == 0 else (UNDEFINED, len(code) & ~3))
        assert [at for at, mark in enumerate(begins) if mark] == [*range(0, stopped, 4)]


def test_code_that_ends_at_any_byte(decode):
    with Image.open(LIBC) as image:
        text = image.section(".text")
        code = image.read(text.offset + 0x4000, 997)
    ((_, whole_end, *_, flows),) = decode([code], room=997)
    for cut, (end, stopped, _, begins, found) in zip(
        range(1, whole_end), decode([code[:cut] for cut in range(1, whole_end)], room=997), strict=True
    ):
        check(code[:cut], end, stopped, begins, found)
        assert found == flows[: len(found)]


def test_there_may_be_more_flows_than_room(decode):
    code = b"\xc3" * 9
    ((end, stopped, *_, flows),) = decode([code], room=5)
    assert (end, stopped, len(flows)) == (FULL, 5, 5)
    ((end, stopped, *_, flows),) = decode([code], room=9)
    assert (end, stopped, len(flows)) == (DONE, 9, 9)


def test_the_same_as_in_the_shim(decode):
    with Image.open(LIBC) as image:
        text = image.section(".text")
        code = image.read(text.offset + 0x9000, 4096)
    ((end, stopped, falls, begins, flows),) = decode([code], room=4096)
    marks, room, sweep = ffi.new("uint8_t[]", 4096), ffi.new("usdtkit_flow[]", 4096), ffi.new("usdtkit_sweep *")
    lib.usdtkit_sweep_x86_64(code, len(code), marks, room, 4096, sweep)
    assert (sweep.end, sweep.stopped, sweep.falls_through, list(marks)) == (end, stopped, falls, begins)
    assert [(f.at, f.length, f.kind, f.condition, f.flags, f.target) for f in room[0 : sweep.flows]] == flows


@pytest.mark.parametrize(
    ("code", "falls_through"),
    [
        *[("90", 1), ("c3", 0), ("e800000000", 0), ("e8000000006690", 0), ("c30f1f00", 0), ("7400", 1), ("eb00", 0)],
        *[("0f0b", 0), ("ffe0", 0), ("9031c0", 1), ("c390c89090", 1), ("0f05", 0)],
    ],
)
def test_whether_control_runs_on(decode, code, falls_through):
    """A call at the end, or one that only padding follows, is of a function that does not return."""
    code = bytes.fromhex(code).replace(b"\xc8", b"\x31\xc0")
    ((end, _, found, *_),) = decode([code])
    assert (end, found) == (DONE, falls_through)
