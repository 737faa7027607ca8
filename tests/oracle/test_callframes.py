"""Call frame information as readelf reads it; and the exits of all functions of real files, which it must fit."""

import collections
import re
import subprocess
import time

import pytest

from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import UnsupportedError

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
REGISTERS = {"rsp": 7, "rbp": 6, "r10": 10, "rdx": 1, "rdi": 5, "rax": 0, "rcx": 2, "rbx": 3, "r11": 11, "r9": 9}
FDE = re.compile(r"\w+ \w+ \w+ FDE cie=\w+ pc=(\w+)\.\.(\w+)")
ROW = re.compile(r"([0-9a-f]{16}) (exp|(\w+)\+(\d+)) ")
# Of assembler.
RUNS_ON = "it continues into the code after it"
INTO_ANOTHER = "it jumps into the middle of another function, or outside of any function"


@pytest.mark.parametrize("path", [f"{LIBRARIES}/libc.so.6", f"{LIBRARIES}/libstdc++.so.6", "/usr/bin/python3.11"])
def test_every_row_is_that_of_readelf(path):
    # It fails where it has warned, as of libc's debug file; then too it has shown all.
    dump = subprocess.run(["readelf", "--debug-dump=frames-interp", path], text=True, capture_output=True).stdout
    described, rows, differ = 0, 0, []
    with Image.open(path) as image:
        frames = CallFrames(image)
        start = end = 0
        for line in dump.splitlines():
            if found := FDE.match(line):
                start, end = (int(number, 16) for number in found.groups())
                described += 1
                ours = frames.covering(start)
                if ours is None or (ours.start, ours.end) != (start, end):
                    differ.append(line)
            elif (found := ROW.match(line)) and start <= int(found[1], 16) < end:
                rows += 1
                rule = frames.rule(int(found[1], 16))
                expected = (-1, 0) if found[2] == "exp" else (REGISTERS[found[3]], int(found[4]))
                if rule != expected:
                    differ.append((line, rule))
    assert differ == []
    assert described > 3000
    assert rows > described


@pytest.mark.parametrize(
    ("path", "functions_at_least", "reasons"),
    [
        (f"{LIBRARIES}/libc.so.6", 2100, {"it does not return", RUNS_ON, INTO_ANOTHER}),
        (f"{LIBRARIES}/libstdc++.so.6", 3700, {"it does not return"}),
        (f"{LIBRARIES}/libcrypto.so.3", 5300, {"it does not return", RUNS_ON}),
        ("/usr/sbin/mariadbd", 15_000, {"it does not return"}),
        (
            "/usr/bin/python3.11",
            1400,
            {"it does not return", "it leaves by 906 instructions, and at most 256 are supported"},
        ),
    ],
)
def test_the_frame_agrees_at_every_exit(path, functions_at_least, reasons):
    """Whether it is 8 bytes above the stack pointer there is what the finder checks. It must not refuse one for it."""
    why, understood, sites = collections.Counter(), 0, 0
    with Image.open(path) as image:
        by_address = {function.address: function for function in functions(image, "*") if function.size}
        finder = ExitFinder(image)
        started = time.process_time()
        for function in by_address.values():
            try:
                found = finder.find(function)
            except UnsupportedError as error:
                why[error.message.partition("cannot be found: ")[2]] += 1
            else:
                understood += 1
                sites += len(found.sites)
                assert list(found.sites) == sorted(found.sites)
                assert len({site.file_offset for site in found.sites}) == len(found.sites)
        each = (time.process_time() - started) / len(by_address)
    assert understood >= functions_at_least
    assert understood <= sites < 3 * understood
    assert set(why) <= reasons, why
    assert why.total() < 0.04 * understood
    assert each < 0.002
