"""threadsnoop on a C program, on Debian's Python and on a limit: every thread, and the function it begins in."""

import csv
import re
from collections import Counter

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit

pytestmark = pytest.mark.machine

SOURCE = """
#include <pthread.h>
#include "program.h"
void *boil(void *water) { return water; }
void *bake(void *bread) { return bread; }
static void many(void *(*start)(void *), int times) {
    pthread_t thread;
    for (int i = 0; i < times; i++) {
        if (pthread_create(&thread, 0, start, 0))
            continue;
        pthread_join(thread, 0);
    }
}
int main(void) {
    pthread_attr_t huge;
    pthread_t thread;
    pthread_attr_init(&huge);
    pthread_attr_setstacksize(&huge, 1ul << 46);
    await_go();
    many(boil, 97);
    many(bake, 31);
    return pthread_create(&thread, &huge, bake, 0) ? 0 : 1;
}"""


@pytest.mark.parametrize("form", ["--json", "--csv", "table"])
def test_every_thread_and_where_it_begins(form, compile_c, ready, spawn):
    program = ready([compile_c(SOURCE, "-pthread")])
    options = [] if form == "table" else [form]
    tracer = start_tracing(spawn, "threadsnoop", "-p", str(program.pid), *options)
    go(program)
    assert program.wait(30) == 0
    output, messages = end_of_tracing(tracer)
    if form == "--json":
        header, events, summary = json_lines(output)
        assert header["schema"] == "usdtkit.threadsnoop/1"
        assert (summary["received"], summary["lost"]) == (129, 0)
        seen = Counter((event["function"], event["result"]) for event in events)
    elif form == "--csv":
        seen = Counter((row["function"], row["result"]) for row in csv.DictReader(output.splitlines()))
    else:
        heading, *lines = output.splitlines()
        assert heading.split() == ["TIME", "PID", "COMM", "RESULT", "FUNC"]
        seen = Counter((line.split()[4], line.split()[3]) for line in lines)
        assert re.search(r"received 129, lost 0, from \d files? in 1 process\n$", messages)
    assert seen == {("boil", "ok"): 97, ("bake", "ok"): 31, ("bake", "EAGAIN"): 1}


def test_threads_of_python(run_python, spawn, wait_for_line):
    source = """
import threading
print("ready", flush=True)
input()
for _ in range(31):
    thread = threading.Thread(target=str)
    thread.start()
    thread.join()
"""
    program = run_python(source)
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "threadsnoop", "-p", str(program.pid), "--json", "--comm", "python*")
    go(program)
    assert program.wait(30) == 0
    _, events, _ = json_lines(end_of_tracing(tracer)[0])
    assert len(events) == 31
    # Debian's is stripped.
    (label,) = {event["function"] for event in events}
    assert label.startswith("python3.") and "+0x" in label


def test_a_process_without_a_c_library(ready, compile_c):
    program = ready([compile_c('#include "program.h"\nint main(void) { await_go(); return 0; }', "-static")])
    assert_explained(usdtkit("threadsnoop", "-p", program.pid), 4, str(program.pid), "hint")
