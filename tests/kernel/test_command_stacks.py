"""Stacks of a command are whole from its first instruction on, whatever it loads and becomes."""

import signal
import subprocess
import sys
from collections import Counter

import pytest
from commandline import USDTKIT, go, json_lines, read_until, stop_tracing

from usdtkit import trace
from usdtkit.trace import ustack
from usdtkit.trace.stacks import Stacks

CHAINS = {
    ("work", "left", "main"): 997,
    ("work", "deeper", "right", "main"): 997,
    ("work", "descend", "descend", "descend", "main"): 997,
}
BEGINS = """
#define NOINLINE __attribute__((noinline, noclone))
volatile long sum;
NOINLINE void reached(long n) { sum += n; }
NOINLINE void through(long n) { reached(n); sum++; }
__attribute__((constructor)) static void begin(void) { for (long n = 0; n < 997; n++) through(n); sum++; }
int hit(int n) { through(n); return sum > n; }
"""
CONTINUED = """
#include <dlfcn.h>
#include <signal.h>
#include "program.h"
static volatile sig_atomic_t continued;
static void handler(int number) { (void)number; continued++; }
int main(int argc, char **argv)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCONT);
    if (argc > 2)
        sigprocmask(SIG_BLOCK, &set, NULL);
    else
        signal(SIGCONT, handler);
    if (!dlopen(argv[1], RTLD_NOW))
        return 1;
    sigpending(&set);
    printf("continued %d pending %d\\n", (int)continued, sigismember(&set, SIGCONT));
    return 0;
}
"""


def stacks_of(command, file, function, end=""):
    """The stacks of a function's hits in a command, by the names of their frames. All of them end for this reason."""
    with trace.Session(command=[str(word) for word in command], command_stdout=2) as session:
        counts = session.uprobe(str(file), function).count(stack=ustack)
        list(session)
        assert session.command_status == 0
        found = Counter()
        for (stack, *_), count in counts.read().items():
            found[tuple(frame.name for frame in stack)] += count
            assert stack.end == end, stack
        summary = session.summary()
        assert (summary.no_stack, summary.lost) == (0, 0)
        assert [cut.why for cut in summary.cut_stacks] == ([end] if end else [])
        return found


def up_to_main(stacks):
    found = Counter()
    for names, count in stacks.items():
        found[names[: names.index("main") + 1]] += count
    return found


@pytest.mark.parametrize("flags", [(), ("-no-pie",), ("-static",), ("-static-pie",)], ids="".join)
@pytest.mark.parametrize("by", [(), ("sh", "-c", 'exec env "$@"', "sh")], ids=["", "exec"])
def test_a_program(flags, by, compile_c):
    path = compile_c("chains.c", "-O2", "-fomit-frame-pointer", *flags)
    stacks = stacks_of([*by, path, "997", "exit"], path, "work")
    assert up_to_main(stacks) == CHAINS
    assert {names[-1] for names in stacks} == {"_start"}


def test_its_first_instruction(compile_c):
    path = compile_c("chains.c", "-O2")
    assert stacks_of([path, "997", "exit"], path, "_start") == {("_start",): 1}


def test_a_script_of_another_c_library(compile_c, tmp_path):
    path = compile_c("chains.c", "-O2", compiler="musl-gcc")
    script = tmp_path / "script"
    script.write_text(f"#!{path} 997\n")
    script.chmod(0o755)
    # This library was built without tables and frame pointers.
    assert up_to_main(stacks_of([script], path, "work", "code without tables")) == CHAINS


def test_a_library_whose_code_runs_while_it_is_loaded(compile_c):
    library = compile_c(BEGINS, "-O2", "-shared", "-fPIC")
    stacks = stacks_of([compile_c("loads.c", "-O2"), library], library, "reached")
    assert {names[-1] for names in stacks} == {"_start"}
    assert stacks.total() == 2 * 997
    inner = Counter()
    for names, count in stacks.items():
        assert "main" in names
        inner[names[:3]] += count
    assert inner == {("reached", "through", "begin"): 997, ("reached", "through", "hit"): 997}


def test_extension_modules_of_python():
    script = "import ctypes, decimal, json, resource, ssl\nfor n in range(997): resource.getrusage(0)"
    stacks = stacks_of(["/usr/bin/python3", "-c", script], "c", "getrusage")
    assert stacks.total() == 997
    assert all(names[-1] == "_start" and "Py_BytesMain" in names for names in stacks)


def test_all_allocations_of_a_program():
    """Also those of the dynamic linker, which calls malloc before the program begins."""
    stacks = stacks_of([sys.executable, "-c", "import sqlite3, ssl"], "c", "malloc")
    assert stacks.total() > 997


@pytest.mark.parametrize("words", [(), ("blocked",)], ids=["handled", "blocked"])
def test_who_waits_for_a_signal_of_ours_gets_none(words, compile_c, capfd):
    library = compile_c(BEGINS, "-O2", "-shared", "-fPIC")
    with trace.Session(command=[str(compile_c(CONTINUED, "-O2")), str(library), *words]) as session:
        counts = session.uprobe(str(library), "reached").count(stack=ustack)
        list(session)
        assert session.command_status == 0
        assert sum(counts.read().values()) == 997
    assert capfd.readouterr().out == "continued 0 pending 0\n"


def test_what_fails_at_a_stop_stops_nothing_else(compile_c, monkeypatch):
    def fails(*_):
        raise OSError

    monkeypatch.setattr(Stacks, "learn", fails)
    library = compile_c(BEGINS, "-O2", "-shared", "-fPIC")
    with trace.Session(command=[str(compile_c("loads.c", "-O2")), str(library)], command_stdout=2) as session:
        counts = session.uprobe(str(library), "reached").count(stack=ustack)
        list(session)
        assert session.command_status == 0
        assert sum(counts.read().values()) == 2 * 997


KILLED_AT_THE_STOP = """
import os, signal, sys
from usdtkit import trace
from usdtkit.trace import stacks
stacks.Stacks.learn = lambda self, pid: os.kill(os.getpid(), signal.SIGKILL)
with trace.Session(command=sys.argv[2:]) as session:
    session.uprobe(sys.argv[1], "work").count(stack=trace.ustack)
    list(session)
"""


def test_it_goes_on_when_the_tracer_is_killed(compile_c, run_python):
    path = compile_c("chains.c", "-O2")
    tracer = run_python(KILLED_AT_THE_STOP, path, path, "997", "exit", stdin=subprocess.DEVNULL)
    assert "descend 997" in read_until(tracer, "descend", timeout=60)
    assert tracer.wait() == -signal.SIGKILL


def test_code_that_a_program_makes_at_run_time(compile_c, spawn):
    """No dynamic linker tells of it. Frame pointers are followed there, which was right, as a look at it says then."""
    path = compile_c("generated.c", "-O2", "-fomit-frame-pointer")
    tracer = spawn([*USDTKIT, "stackcount", f"{path}:work", "--json", "-c", f"{path} 997"], stderr=subprocess.PIPE)
    read_until(tracer, "ready", stream="stderr", timeout=60)
    go(tracer)
    read_until(tracer, "done", stream="stderr")
    _, rows, summary = json_lines(stop_tracing(tracer)[0])
    assert sum(row["count"] for row in rows) == 3 * 997
    (whole,) = [row["stack"] for row in rows if row["stack"][-1]["name"] == "_start"]
    assert [frame["name"] for frame in whole[:5]] == ["work", "inner", None, "keeping", "main"]
    assert summary["cut_stacks"] == [{"why": "code without tables", "count": 2}]
