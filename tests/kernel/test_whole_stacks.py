"""Stacks of programs without frame pointers: every frame up to the outermost function, whatever lies between."""

from collections import Counter

import pytest

from usdtkit import trace
from usdtkit.trace import ustack

TIMES = 997
OUTERMOST = "main", "_start"
CHAINS = {
    ("on_signal", "by_signal", *OUTERMOST),
    ("on_fault", "faults", "by_fault", *OUTERMOST),
    ("by_size", "by_alignment", *OUTERMOST),
    ("jumped_to", "by_jump", *OUTERMOST),
    ("never_returns", "by_no_return", "by_jump_back", *OUTERMOST),
    ("by_jump_back", *OUTERMOST),
    ("by_comparison", "sorts", *OUTERMOST),
    ("by_context",),
    ("by_depth",) * 126,  # which is all that is kept
    ("by_ten",) * 10 + OUTERMOST,
    ("by_thread",),
}
FUNCTIONS = {name for chain in CHAINS for name in chain} | {"jumps", "neighbour", "neighbour_of_no_return"}
"""Of the program, which libc may be a part of."""

BUILDS = {
    "gcc": ["-O2"],
    "fixed": ["-O2", "-no-pie"],
    "small": ["-Os"],
    "static": ["-O2", "-static", "-Wl,--no-warnings"],
    "clang": ["-O2", "-Wno-unknown-attributes"],
}


def build(compile_c, name):
    return compile_c("unwound.c", *BUILDS[name], compiler="clang" if name == "clang" else "gcc")


def work(process, wait_for_line):
    process.stdin.write("\n")
    process.stdin.flush()
    wait_for_line(process, f"done {TIMES}")


def chains(counts, path):
    """Counts by the names of those frames of a stack that are the program's own, behind hit()."""
    found = Counter()
    for (stack,), count in counts.read().items():
        first, *others = stack
        assert (first.name, first.module) == ("hit", str(path))
        found[tuple(frame.name for frame in others if frame.name in FUNCTIONS and frame.module == str(path))] += count
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_every_chain(name, compile_c, ready, wait_for_line):
    path = build(compile_c, name)
    process = ready([path, TIMES])
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "hit").count(stack=ustack)
        session.start()
        work(process, wait_for_line)
        assert chains(counts, path) == dict.fromkeys(CHAINS, TIMES)


@pytest.mark.parametrize("returns", ["probes", "sites"])
def test_below_pending_return_probes(returns, compile_c, ready, wait_for_line):
    """Where the kernel has replaced the return addresses of ten calls, and of others, by its trampoline's."""
    path = build(compile_c, "gcc")
    process = ready([path, TIMES])
    probed = "by_signal", "by_size", "by_ten", "by_comparison", "by_thread", "sorts", "on_signal"
    with trace.Session(pid=process.pid, returns=returns) as others, trace.Session(pid=process.pid) as session:
        returned = others.uretprobe(str(path), *probed).count("probe")
        counts = session.uprobe(str(path), "hit").count(stack=ustack)
        others.start()
        session.start()
        work(process, wait_for_line)
        assert chains(counts, path) == dict.fromkeys(CHAINS, TIMES)
        assert returned.read()[("by_ten",)] == 10 * TIMES


LIBRARY = """
void by_library(void (*hit)(long), long n);
void by_library(void (*hit)(long), long n) { hit(n); __asm__ volatile(""); }
"""


def test_a_library_that_is_loaded_meanwhile(compile_c, ready, wait_for_line):
    """The stacks that lead through it until its table is there are cut, and counted."""
    path, library = build(compile_c, "gcc"), compile_c(LIBRARY, "-O2", "-shared", "-fPIC")
    process = ready([path, TIMES, library])
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "hit").count(stack=ustack)
        session.start()
        work(process, wait_for_line)
        first = library_ends(counts)
        work(process, wait_for_line)
        both = library_ends(counts)
    assert first.total() == TIMES
    assert first.keys() <= {"", "memory that is not known to have code"}
    assert both - first == {"": TIMES}


def library_ends(counts):
    """Counts of stacks that lead through the library, by what ended them."""
    found = Counter()
    for (stack,), count in counts.read().items():
        if stack.frames[1].name == "by_library":
            found[stack.native_end] += count
    return found
