"""Sets of files and the reader of the kernel's types, under the sanitisers: against a set of Python, a known BTF, and
bytes of any kind."""

import errno
import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
STRUCT, UNION, TYPEDEF, FUNC = 4, 5, 8, 12


@pytest.fixture(scope="module")
def program(compile_c):
    """program(*words, given=bytes) -> the numbers that tests/native/mappings.c prints."""
    sanitise = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    warnings = ["-Wextra", "-Wno-missing-field-initializers", "-Wno-unused-function"]
    source = Path(__file__).with_name("mappings.c").read_text()
    binary = compile_c(source, "-O1", *warnings, "-I", str(ROOT / "native"), *sanitise)

    def run(*words, given=b""):
        done = subprocess.run([binary, *words], input=given, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        return [int(line) for line in done.stdout.split()]

    return run


def test_a_set_of_files_is_a_set(program):
    chance = random.Random(997)
    known, commands, expected = set(), [], []
    for _ in range(20_000):
        inode, command = chance.randrange(1, 3000), chance.choice("aarh")
        commands.append(f"{command} {inode}")
        if command == "a":
            known.add(inode)
        elif command == "r":
            known.discard(inode)
        else:
            expected.append(inode in known)
    assert program("set", given="\n".join(commands).encode()) == expected


def btf(types, names):
    """BTF of these types: (name, kind, members of (name, type, offset in bits))."""
    strings, places = b"\0", {"": 0}
    for name in names:
        places[name] = len(strings)
        strings += name.encode() + b"\0"
    data = b""
    for name, kind, members in types:
        data += struct.pack("<III", places[name], kind << 24 | len(members), 0)
        data += b"".join(struct.pack("<III", places[member], type, offset) for member, type, offset in members)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data), len(data), len(strings)) + data + strings


KNOWN = btf(
    [
        ("", STRUCT, [("first", 0, 0), ("second", 0, 64)]),  # 1, without a name
        ("", UNION, [("", 1, 0), ("other", 0, 0)]),  # 2
        ("area", STRUCT, [("head", 0, 0), ("", 2, 128), ("last", 0, 512)]),  # 3
        ("area", TYPEDEF, []),  # 4
        ("iterate", FUNC, []),  # 5
    ],
    ["first", "second", "other", "area", "head", "last", "iterate"],
)
NAMES = (
    "area.head",
    "area.second",
    "area.other",
    "area.last",
    "area.none",
    "func:iterate",
    "typedef:area",
    "func:area",
)


def test_members_functions_and_what_is_not_there(program):
    assert program("btf", *NAMES, given=KNOWN) == [0, 24, 16, 64, -1, 5, 4, -1]


def test_the_running_kernels(program):
    data = Path("/sys/kernel/btf/vmlinux").read_bytes()[: 1 << 20]  # cut off, which no reader may trust
    assert program("btf", *NAMES, given=data) == [-errno.EINVAL]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, len(KNOWN) - 1), st.integers(0, 255)))))
def test_damaged_bytes(program, damage):
    data = bytearray(KNOWN)
    if isinstance(damage, bytes):
        data = KNOWN[:4] + damage
    else:
        for place, value in damage:
            data[place] = value
    program("btf", *NAMES, given=bytes(data))
