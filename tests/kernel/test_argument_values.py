"""What is read of a probe's arguments equals what the program prints of them, in every form that its build has."""

import os
import shutil
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.errors import UsageError
from usdtkit.trace import arg, cstr, retval, uprobe

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


def test_functions_of_32_bits(compile_c, spawn, wait_for_line):
    source = """
    #include "program.h"
    NOINLINE int work(int n, const char *text) { return n < 0 ? n : work(n - 1, text); }
    int main(void) { await_go(); return work(4, "four") != -1; }
    """
    flags = ["-static", "-O1", "-fno-optimize-sibling-calls"]
    path = str(compile_c(source, *flags, compiler="i686-linux-gnu-gcc"))
    process = spawn([path])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, returns="probes") as session:
        calls = session.pair(uprobe(path, "work"), keep={"n": arg(1).cast("i32"), "text": cstr(2)})
        calls.emit("n", "text", result=retval.cast("i32"))
        session.start()
        process.stdin.close()
        assert [event[4:] for event in session] == [(n, "four", -1) for n in range(-1, 5)]
    assert session.summary().unmatched == session.summary().abandoned == 0


GO = """
#include "program.h"
__attribute__((section(".go.buildinfo"), used))
char info[64] = "\\xff Go buildinf:\\x08\\x02" "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0" "\\x08" "go1.22.0";
NOINLINE long work(void) { __asm__ volatile(""); return 7; }
int main(void)
{
    long result = 997, second = -5, third = 3;
    await_go();
    __asm__ volatile("call work" : "+a"(result) : "b"(second), "c"(third) : "memory", "cc");
    return result != 7;
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other machines' registers have other names")
def test_functions_of_go(compile_c, spawn, wait_for_line):
    path = str(compile_c(GO, "-O1", "-mno-red-zone"))
    process = spawn([path])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        session.uprobe(path, "work").emit(first=arg(1), second=arg(2).cast("i64"), third=arg(3))
        session.start()
        process.stdin.close()
        assert [event[4:] for event in session] == [(997, -5, 3)]
    assert process.wait(20) == 0


def test_files_whose_functions_are_called_in_different_ways(compile_c, tmp_path):
    for name, source in (("go", GO), ("c", "work.c")):
        shutil.copy(compile_c(source, "-O1", "-mno-red-zone"), tmp_path / name)
    with trace.Session() as session:
        work = session.uprobe(tmp_path, "work")
        calls = work.count("probe")
        session.start()
        assert calls.read() == {}
        assert len(session.plan()) == 2
    with trace.Session() as session:
        session.uprobe(tmp_path, "work").emit(first=arg(1))
        with pytest.raises(UsageError, match="called in different ways"):
            session.start()
