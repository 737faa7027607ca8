"""memleak on a program that says what it kept, with glibc's allocator, jemalloc and tcmalloc."""

import csv
import io
import json
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit

from usdtkit.tools import memleak
from usdtkit.trace import Session

LIBRARIES = Path(f"/usr/lib/{os.uname().machine}-linux-gnu")
JEMALLOC, TCMALLOC = LIBRARIES / "libjemalloc.so.2", LIBRARIES / "libtcmalloc_minimal.so.4"
# What the C library keeps of a thread.
OF_THREADS = {"pthread_create", "allocate_dtv", "_dl_allocate_tls", "calloc", "allocate_stack"}


@pytest.fixture
def leak(compile_c, spawn, wait_for_line):
    """leak(way, *options, preload=None, times=997) -> (output, messages, (blocks, bytes) that the program kept)."""

    def run(way, *options, preload=None, times=997):
        environment = os.environ | ({"LD_PRELOAD": str(preload)} if preload else {})
        path = compile_c("heap.c", "-O2", "-pthread")
        program = spawn([path, way, str(times)], env=environment)
        wait_for_line(program, "ready")
        tracer = start_tracing(spawn, "memleak", "-p", str(program.pid), "-o", "0", *options)
        go(program)
        kept = tuple(map(int, wait_for_line(program, "kept").split()[1:]))
        program.stdin.close()  # the program ends, and the trace with it
        return *end_of_tracing(tracer), kept

    return run


def sums(output):
    """Blocks and bytes by the innermost function, of --json; what the C library has for itself left out."""
    header, rows, summary = json_lines(output)
    assert header["schema"] == "usdtkit.memleak/2"
    assert (summary["lost"], summary["full"], summary["no_stack"]) == (0, 0, 0)
    found = defaultdict(lambda: (0, 0))
    for row in rows:
        function = row["stack"][0]["name"]
        if function not in OF_THREADS:
            blocks, size = found[function]
            found[function] = blocks + row["count"], size + row["bytes"]
    return found


def test_what_leaks_and_nothing_else(leak):
    output, _, kept = leak("leak", "--json")
    assert sums(output) == {"leaky": kept} == {"leaky": (997, 997 * 31)}


def test_threads_that_free_each_others_blocks(leak):
    output, _, kept = leak("threads", "--json")
    found = sums(output)
    found.pop(None, None)  # what the loader keeps for a thread, where it has no symbols
    assert found == {"leaky": kept} == {"leaky": (4 * 997, 4 * 997 * 31)}


def test_every_function_of_the_family(leak):
    output, _, kept = leak("kinds", "--json")
    assert sums(output) == {"family": kept} == {"family": (9, 484)}


def test_realloc(leak):
    output, _, kept = leak("realloc", "--json")
    found = sums(output)
    assert found == {"grown": (997, 997 * 997), "refused": (1, 47)}
    assert kept == (998, 997 * 997 + 47)


def test_large_blocks_are_counted_once_and_mappings_too(leak):
    output, _, kept = leak("large", "--json", times=97)
    assert sums(output) == {"big": (97, 97 << 20), "mapped": (2, 16384)}
    assert kept == (99, (97 << 20) + 16384)


@pytest.mark.parametrize("allocator", [JEMALLOC, TCMALLOC], ids=["jemalloc", "tcmalloc"])
def test_other_allocators(allocator, leak):
    output, _, kept = leak("threads", "--json", "-O", str(allocator), preload=allocator)
    assert sums(output)["leaky"] == kept
    output, _, kept = leak("realloc", "--json", "-O", str(allocator), preload=allocator)
    assert {name: of for name, of in sums(output).items() if name in ("grown", "refused", "moved")} == {
        "grown": (997, 997 * 997),
        "refused": (1, 47),
    }


def test_names_with_a_prefix(leak):
    output, _, kept = leak("leak", "--json", "-O", str(TCMALLOC), "--symbols-prefix", "tc_", preload=TCMALLOC)
    assert sums(output)["leaky"] == kept


def test_the_table_csv_and_folded_lines_agree(leak):
    output, messages, _ = leak("realloc")
    assert re.match(r"\n\d\d:\d\d:\d\d\n\nTop 10 stacks with outstanding allocations:\n", output)
    assert re.search(r"\t47 bytes in 1 allocations from stack\n\t\trefused\+0x[0-9a-f]+\n\t\tmain\+", output)
    assert output.index("refused") < output.index(f"\t{997 * 997} bytes in 997 allocations from stack\n\t\tgrown+")
    assert "lost 0" in messages
    rows = list(csv.DictReader(io.StringIO(leak("realloc", "--csv")[0])))
    assert [(row["bytes"], row["count"], row["stack"].split(";")[-1]) for row in rows] == [
        ("47", "1", "refused"),
        (str(997 * 997), "997", "grown"),
    ]
    folded = leak("realloc", "-f")[0].splitlines()
    assert [line.rpartition(";")[2] for line in folded] == ["refused 47", f"grown {997 * 997}"]


def test_sizes_and_the_top(leak):
    assert sums(leak("realloc", "--json", "-z", "900", "-Z", "1000")[0]) == {"grown": (997, 997 * 997)}
    assert sums(leak("realloc", "--json", "-Z", "47")[0]) == {"refused": (1, 47)}
    assert sums(leak("realloc", "--json", "-T", "1", "--sort", "count")[0]) == {"grown": (997, 997 * 997)}


def test_each_block(leak):
    header, rows, _ = json_lines(leak("leak", "--json", "-a", times=97)[0])
    assert header["schema"] == "usdtkit.memleak/2"
    assert len({row["address"] for row in rows}) == len(rows) == 97
    assert {(row["bytes"], row["stack"][0]["name"]) for row in rows} == {(31, "leaky")}
    table = leak("leak", "-a", times=97)[0]
    assert len(re.findall(r"^\taddr = 0x[0-9a-f]+ size = 31$", table, re.M)) == 97


def test_samples(leak):
    output, _, _ = leak("leak", "--json", "-s", "10", times=9970)
    (blocks, size) = sums(output)["leaky"]
    assert size == blocks * 31
    assert 500 < blocks < 2000


def test_too_many_blocks_are_counted(leak):
    output, messages, _ = leak("leak", "--capacity", "100")
    assert re.search(r"\t3100 bytes in 100 allocations", output)
    assert "1,894 not counted, table full" in messages  # and those that tidy has for a while


def test_looks_at_intervals(compile_c, spawn, ready, wait_for_line):
    program = ready([compile_c("heap.c", "-O2", "-pthread"), "leak", "997"])
    tracer = start_tracing(spawn, "memleak", "-p", str(program.pid), "-o", "0", "0.2", "--json")
    go(program)
    wait_for_line(program, "kept")
    looks = [json.loads(wait_for_line(tracer, '"leaky"', timeout=60)) for _ in range(3)]
    assert (looks[2]["count"], looks[2]["bytes"]) == (997, 997 * 31)
    assert looks[0]["time_ns"] < looks[1]["time_ns"] < looks[2]["time_ns"]
    stop_tracing(tracer)
    last = start_tracing(spawn, "memleak", "-p", str(program.pid), "0.2", "2")
    assert end_of_tracing(last)[0].count("Top 10 stacks") == 2


def test_each_call(leak):
    _, rows, _ = json_lines(leak("leak", "-t", "--json", times=97)[0])
    allocated = [row["address"] for row in rows if row["function"] == "malloc" and row["bytes"] == 101]
    freed = [row["address"] for row in rows if row["function"] == "free"]
    assert allocated == freed
    assert len(freed) == 97
    assert sum(row["bytes"] == 31 for row in rows) == 97
    heading, *lines = leak("leak", "-t", times=97)[0].splitlines()
    assert heading.split() == ["TIME", "PID", "FUNCTION", "BYTES", "ADDRESS"]
    assert len(lines) == len(rows)


def test_a_tool_that_python_calls(compile_c, ready, wait_for_line):
    program = ready([compile_c("heap.c", "-O2", "-pthread"), "leak", "997"])
    with Session(pid=program.pid) as session:
        results = memleak.trace(session, memleak.Options(older_ms=0.0))
        session.start()
        go(program)
        wait_for_line(program, "kept")
        title, *stacks = results.summarise()
    assert title.title == "Top 10 stacks with outstanding allocations:"
    assert (stacks[-1].values["count"], stacks[-1].weight) == (997, 997 * 31)
    assert stacks[-1].frames.frames[0].name == "leaky"


def test_no_process_and_no_allocator(compile_c):
    assert_explained(usdtkit("memleak"), 2, "-p PID")
    path = compile_c("values.c")
    assert_explained(usdtkit("memleak", "-c", "true", "-O", path), 4, "no function malloc in")
