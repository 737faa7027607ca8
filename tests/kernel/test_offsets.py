"""Offsets from a function's start, however they are given: of instructions they count, others are refused."""

import pytest
from commandline import json_lines, usdtkit

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import SpecError, UsageError
from usdtkit.language.parser import parse_trace
from usdtkit.language.select import resolve
from usdtkit.model import UserPlace
from usdtkit.trace.specs import Resolved

# calc: movabs of 10 bytes, lea of 4, and more. A breakpoint in the number that is loaded changes the result.
PROGRAM = """
#include <stdio.h>
__attribute__((noinline)) long calc(long a, long b)
{
    long k = 0x1122334455667788;
    __asm__ volatile("" : "+r"(k));
    return a * 3 + b + (k & 0xff);
}
int main(void)
{
    long total = 0;
    for (int n = 0; n < 997; n++)
        total += calc(n, n);
    printf("%ld\\n", total);
    return 0;
}
"""
TOTAL = str(sum(4 * n + 0x88 for n in range(997)))


@pytest.fixture(scope="module")
def program(compile_c):
    return str(compile_c(PROGRAM, "-O1", "-fcf-protection=none"))


@pytest.mark.parametrize("offset", ["0", "10", "0xa", "14"])
def test_an_instruction_is_counted(program, offset):
    done = usdtkit("funccount", f"{program}:calc+{offset}", "-c", program, "--json")
    assert done.returncode == 0, done.stderr
    assert TOTAL in done.stderr.splitlines()
    assert [row["count"] for row in json_lines(done.stdout)[1]] == [997]


@pytest.mark.parametrize(
    "command",
    [
        *[["funccount", "{}:calc+1"], ["trace", "{}:calc+1"], ["trace", "p:{}:calc+0x1"]],
        *[["argdist", "-C", "p:{}:calc+1()"], ["stackcount", "{}:calc+1"], ["funcinterval", "{}:calc+1"]],
        *[["probelatency", "{}:calc+1", "{}:calc+10"], ["funccount", "-r", "{}:^calc+1"]],
    ],
)
def test_the_middle_of_an_instruction_is_refused(program, command):
    start = [] if command[0] == "argdist" else ["-c", program]  # whose -c is something else
    done = usdtkit(*(word.replace("{}", program) for word in command), *start)
    assert done.returncode == 2
    assert TOTAL not in done.stdout
    assert "calc+1 is in the middle of an instruction" in done.stderr
    assert "begin at calc+0 and calc+10\n" in done.stderr


@pytest.mark.parametrize("offset", ["24", "0x7fffffff", "9999999999999999999"])
def test_beyond_the_end_is_refused(program, offset):
    with Image.open(program) as image:
        assert functions(image, "calc")[0].size <= 24
    done = usdtkit("funccount", f"{program}:calc+{offset}", "-c", program)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"calc ends before {int(offset, 0):#x}" in done.stderr


def test_the_latency_of_a_call_has_no_offset(program):
    done = usdtkit("funclatency", f"{program}:calc+10", "-c", program)
    assert (done.returncode, done.stdout) == (2, "")


def test_in_python_too(program):
    with Image.open(program) as image:
        start = functions(image, "calc")[0].file_offset
    with trace.Session() as session:
        good = Resolved(
            "calc", "entry", (), (UserPlace("calc", program, start), UserPlace("calc", program, start + 10))
        )
        session.source(good).count()
        for wrong in (1, 9, 11):
            bad = Resolved("calc", "entry", (), (UserPlace("calc", program, start + wrong),))
            for take in (session.source, session.pair):
                with pytest.raises(UsageError, match=rf"calc\+{wrong} |inside of calc, {wrong} bytes"):
                    take(bad)
            with pytest.raises(SpecError, match=rf"calc\+{wrong} is in the middle"):
                spec = parse_trace(f"p:{program}:calc+{wrong}")
                resolve(session, spec.text, spec.target)
