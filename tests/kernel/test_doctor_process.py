"""`usdtkit doctor -p PID`: which frames the stacks of processes of all kinds will have, and why not others."""

import json
import re
import sys
from pathlib import Path

import pytest
from commandline import assert_described, usdtkit

BARE = [
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-nostartfiles",
    "-Wl,--no-eh-frame-hdr",
    "-static",
    "-g0",
]
WAITS = 'void _start(void) { for (;;) __asm__ volatile("mov $34, %eax; syscall"); }'
PAUSE = '#include <unistd.h>\n#include <stdio.h>\nint main(void) { puts("ready"); fflush(stdout); pause(); return 0; }'
MAPS = """
#include <sys/mman.h>
#include "program.h"
int main(int argc, char **argv)
{
    long pages = number(argc, argv, 1, 1);
    for (long n = 0; n < pages; n++) /* a page without rights between two keeps them apart */
    {
        int rights = n % 2 ? PROT_NONE : PROT_READ | PROT_EXEC;
        if (mmap(NULL, 4096, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            return 1;
    }
    await_go();
    return 0;
}
"""


def rows(pid):
    """What --json says of a process, by name."""
    done = usdtkit("doctor", "-p", pid, "--json")
    assert done.returncode == 0, done.stderr
    header, *found = map(json.loads, done.stdout.splitlines())
    assert header["schema"] == "usdtkit.doctor_process/1"
    assert_described("usdtkit.doctor_process/1", found)
    assert {row["pid"] for row in found} == {pid}
    return {row["name"]: (row["frames"], row["detail"]) for row in found}


@pytest.fixture
def started(spawn, wait_for_line):
    """started(argv) -> a process that has said that it is ready."""

    def start(*argv):
        process = spawn(argv)
        wait_for_line(process, "ready")
        return process.pid

    return start


def test_a_program_of_c(compile_c, started):
    path = compile_c(PAUSE, "-O2")
    found = rows(pid := started(path))
    assert found[str(path)] == found["[vdso]"] == ("tables", "")
    assert {frames for frames, _ in found.values()} == {"tables"}
    table = usdtkit("doctor", "-p", pid).stdout
    assert table.startswith(f"process {pid} ({path.name[:15]}")
    assert f"\n    tables          {path}\n" in table


def test_a_file_without_tables(compile_c, spawn):
    path = compile_c(WAITS, *BARE)
    found = rows(spawn([path]).pid)
    assert found[str(path)] == ("frame pointers", "has no call frame information")


@pytest.mark.parametrize(("interpreter", "version"), [("/usr/bin/python3", "3.11"), (sys.executable, "3.11")])
def test_python(interpreter, version, started):
    found = rows(started(interpreter, "-c", "print('ready', flush=True); input()"))
    frames, detail = found["Python's functions"]
    assert (frames, detail.partition(" in ")[0]) == ("shown", f"CPython {version}")


def test_code_that_was_compiled_at_run_time(compile_c, started):
    pid = started(compile_c(MAPS, "-O2"), "3")
    assert rows(pid)["8 KB of memory without a file"] == (
        *("frame pointers",),
        "compiled at run time; no perf map names it, such as node --perf-basic-prof writes",
    )
    perf_map = Path(f"/tmp/perf-{pid}.map")
    try:
        perf_map.write_text("1000 10 code\n")
        assert rows(pid)["8 KB of memory without a file"][1] == "compiled at run time; a perf map names it"
    finally:
        perf_map.unlink()


def test_more_mappings_than_the_kernel_knows(compile_c, started):
    path = compile_c(MAPS, "-O2")
    found = rows(started(path, "998"))
    files = sum(frames == "tables" for frames, _ in found.values()) - 1  # the last one is that of memory
    frames, detail = found[f"{499 + files - 256:,} more mappings"]
    assert frames == "none" and detail.startswith("of a process, 256 mappings are known to the kernel")
    assert found[str(path)][0] == "tables"


def test_a_32_bit_process(compile_c, started):
    path = compile_c(PAUSE, "-static", compiler="i686-linux-gnu-gcc")
    assert rows(started(path)) == {"a 32-bit process": ("none", "its hits have no stacks, and are counted")}


def test_no_process():
    done = usdtkit("doctor", "-p", 2**22 + 1)
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize(
    ("command", "language"),
    [
        (["ruby", "-e", "puts 'ready'; $stdout.flush; gets"], "Ruby"),
        (["php", "-r", 'echo "ready\\n"; fgets(STDIN);'], "PHP"),
    ],
)
def test_other_languages(command, language, started):
    frames, detail = rows(started(*command))[f"{language}'s functions"]
    assert frames == "shown" and re.match(rf"{language} \d+\.\d+ in /", detail)
