"""dlopens on programs in C with glibc, musl, or linked statically, and on Python: each call and its result."""

import csv
import re
import subprocess
from collections import Counter

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include "program.h"
static void many(const char *name, int flags, int times) {
    for (int i = 0; i < times; i++) {
        void *handle = dlopen(name, flags);
        if (handle)
            dlclose(handle);
    }
}
int main(void) {
    await_go();
    many("libm.so.6", RTLD_NOW | RTLD_GLOBAL, 97);
    many("libm.so.6", RTLD_LAZY | RTLD_NODELETE, 13);
    many("libno\\nsuch.so", RTLD_NOW | 0x40000000, 31);
    many(NULL, RTLD_LAZY, 7);
#ifdef LM_ID_BASE
    dlmopen(LM_ID_BASE, "libm.so.6", RTLD_NOW);
#endif
    return 0;
}"""
CALLS = {
    ("dlopen", "libm.so.6", "RTLD_NOW|RTLD_GLOBAL", True): 97,
    ("dlopen", "libm.so.6", "RTLD_LAZY|RTLD_NODELETE", True): 13,
    ("dlopen", "libno\nsuch.so", "RTLD_NOW|0x40000000", False): 31,
    ("dlopen", "[main program]", "RTLD_LAZY", True): 7,
    ("dlmopen", "libm.so.6", "RTLD_NOW", True): 1,
}


@pytest.fixture
def trace_program(compile_c, ready, spawn):
    """trace_program(*options) -> (output, messages) of dlopens while the program above runs."""

    def run(*options):
        program = ready([compile_c(SOURCE)])
        tracer = start_tracing(spawn, "dlopens", "-p", str(program.pid), *options)
        go(program)
        assert program.wait(30) == 0
        return end_of_tracing(tracer)

    return run


def calls(rows):
    return Counter((row["probe"], row["library"], row["flags"], row["handle"] not in (0, "0")) for row in rows)


def test_every_call_as_json(trace_program):
    header, events, summary = json_lines(trace_program("--json")[0])
    assert header["schema"] == "usdtkit.dlopens/1"
    assert (summary["received"], summary["lost"], summary["unreadable"]) == (149, 0, 0)
    assert calls(events) == CALLS
    assert all(event["latency_ns"] > 0 for event in events)


def test_every_call_as_csv(trace_program):
    rows = csv.DictReader(trace_program("--csv")[0].splitlines())
    assert calls(rows) == {(probe, name.replace("\n", "\\x0a"), *rest): n for (probe, name, *rest), n in CALLS.items()}


def test_the_table(trace_program):
    output, messages = trace_program()
    heading, *lines = output.splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "RESULT", "FLAGS", "LIBRARY"]
    rows = [line.split(maxsplit=6)[4:] for line in lines]
    assert sum(row == ["NULL", "RTLD_NOW|0x40000000", "libno\\x0asuch.so"] for row in rows) == 31
    assert sum(row[0].startswith("0x") and row[1:] == ["RTLD_LAZY", "[main program]"] for row in rows) == 7
    assert re.search(r"received 149, lost 0, from \d files? in \d+ process(es)?\n$", messages)


def test_only_what_failed(trace_program):
    _, events, _ = json_lines(trace_program("--failed", "--json")[0])
    assert calls(events) == {key: number for key, number in CALLS.items() if not key[-1]}


def test_only_slow_calls(trace_program):
    assert json_lines(trace_program("-m", "60000", "--json")[0])[1] == []


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_a_static_program(compiler, tmp_path):
    source, program = tmp_path / "static.c", tmp_path / "static"
    source.write_text(
        '#include <dlfcn.h>\nint main(void) { for (int i = 0; i < 31; i++) dlopen("/no/such.so", RTLD_NOW); return 0; }'
    )
    subprocess.run([compiler, "-w", "-static", "-o", program, source], check=True, stderr=subprocess.DEVNULL)
    done = usdtkit("dlopens", "--json", "-c", program)
    assert "is statically linked: traced in" in done.stderr
    assert calls(json_lines(done.stdout)[1]) == {("dlopen", "/no/such.so", "RTLD_NOW", False): 31}


def test_a_program_with_musl(tmp_path):
    source, program = tmp_path / "musl.c", tmp_path / "musl"
    source.write_text(
        '#include <dlfcn.h>\nint main(void) { for (int i = 0; i < 31; i++) dlopen("/no/such.so", RTLD_NOW);'
        " return !dlopen(0, RTLD_LAZY); }"
    )
    subprocess.run(["musl-gcc", "-o", program, source], check=True)
    done = usdtkit("dlopens", "--json", "-c", program)
    _, events, summary = json_lines(done.stdout)
    assert summary["command_status"] == 0
    assert calls(events) == {
        ("dlopen", "/no/such.so", "RTLD_NOW", False): 31,
        ("dlopen", "[main program]", "RTLD_LAZY", True): 1,
    }


def test_extension_modules_of_python():
    done = usdtkit("dlopens", "--json", "-c", "/usr/bin/python3 -c 'import _sqlite3; print(_sqlite3.__file__)'")
    _, events, summary = json_lines(done.stdout)
    assert summary["lost"] == 0
    (file,) = [line for line in done.stderr.splitlines() if line.startswith("/") and "_sqlite3" in line]
    (event,) = [event for event in events if event["library"] == file]
    assert event["handle"] != 0
    assert event["comm"].startswith("python3")


def test_a_process_without_the_function(ready, compile_c):
    program = ready([compile_c("int main(void) { await_go(); }", "-static", "-include", "program.h", "-s")])
    assert_explained(usdtkit("dlopens", "-p", program.pid), 4, str(program.pid), "statically linked")
