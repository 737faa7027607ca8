"""What is read of a probe's arguments equals what the program prints of them, in every form that its build has."""

from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes

BUILDS = [
    ("gcc", "-O0 -no-pie -fno-pie"),
    ("gcc", "-O2 -no-pie -fno-pie"),
    ("gcc", "-O3 -funroll-loops -no-pie -fno-pie"),
    ("clang", "-O0 -no-pie -fno-pie"),
    ("clang", "-O2 -no-pie -fno-pie"),
]


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
def test_values_as_the_program_prints_them(compile_c, spawn, wait_for_line, compiler, flags):
    path = compile_c("values.c", "-Wno-unknown-attributes", *flags.split(), compiler=compiler)
    with Image.open(path) as image:
        sites = {probe.name: len(probe.sites) for probe in read_probes(image)}
    assert sites["inlined"] >= 20
    process = spawn([path])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        for name in sites:
            session.usdt(f"values:{name}").emit()
        session.start()
        printed = [line.split() for line in process.communicate("go\n", timeout=20)[0].splitlines()]
        events = list(session)
    assert [event.probe.partition(":")[2] for event in events] == [name for name, *_ in printed]
    for event, (name, *values) in zip(events, printed, strict=True):
        wanted = [float(value) if name == "floats" else int(value) for value in values]
        assert list(event[4:]) == wanted, name
    assert session.summary().unreadable == 0


NARROW = """
#include "program.h"
#include <sys/sdt.h>
static volatile int table[] = {-1, 997, 3};
NOINLINE void work(int at, signed char tiny, unsigned short small, const char *text)
{
    DTRACE_PROBE5(narrow, work, at, tiny, small, table[at], text);
    printf("%d %d %u %d %s\\n", at, tiny, small, table[at], text);
}
int main(void)
{
    await_go();
    for (int at = 0; at < 3; at++)
        work(at, -at, 65535 - at, "plain");
    return 0;
}
"""


@pytest.mark.parametrize("flags", ["-O0 -static", "-O2 -static", "-O2 -static -no-pie -fno-pie"])
def test_a_program_of_32_bits(compile_c, spawn, wait_for_line, tmp_path, flags):
    (tmp_path / "sys").mkdir()
    for header in ("sdt.h", "sdt-config.h"):
        (tmp_path / "sys" / header).write_bytes(Path("/usr/include/x86_64-linux-gnu/sys", header).read_bytes())
    path = compile_c(NARROW, "-I", str(tmp_path), *flags.split(), compiler="i686-linux-gnu-gcc")
    process = spawn([path])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        session.usdt("narrow:work").emit("arg1", "arg2", "arg3", "arg4", text=trace.cstr(trace.arg(5)))
        session.start()
        printed = process.communicate("go\n", timeout=20)[0].split()
        assert [str(value) for event in session for value in event[4:]] == printed
    assert session.summary().unreadable == 0
