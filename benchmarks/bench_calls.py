"""What measuring the calls of one function costs the program: by return probes, by the function's exits, and bpftrace.

The target takes the processor time of its own loop. Needs root, gcc and bpftrace.
"""

import contextlib
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from common import compare, interrupt, medians

from usdtkit import trace

CALLS, ROUNDS = 20_011, 15
BASELINE = "bpftrace, entry to return"
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
__attribute__((noinline)) long inner(long n) { __asm__ volatile("" : "+r"(n)); return n; }
__attribute__((noinline)) long work(long n) { long r = inner(n); __asm__ volatile("" ::: "memory"); return r + 1; }
int main(void)
{
    char line[32];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        struct timespec a, b;
        long times = atol(line);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        for (long i = 0; i < times; i++)
            work(i);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        printf("%.1f\\n", ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / times);
        fflush(stdout);
    }
    return 0;
}
"""


@contextlib.contextmanager
def pair(path, pid, returns):
    with trace.Session(pid=pid, returns=returns) as session:
        calls = session.pair(trace.uprobe(path, "work"))
        latencies = calls.hist(calls.latency)
        session.start()
        yield
        if latencies.read()[()].count != CALLS:
            raise SystemExit(f"usdtkit has measured {latencies.read()[()].count} of {CALLS} calls")


@contextlib.contextmanager
def bpftrace(path, pid):
    script = (
        f"uprobe:{path}:work /pid == {pid}/ {{ @start[tid] = nsecs; }} "
        f"uretprobe:{path}:work /@start[tid]/ {{ @ = hist(nsecs - @start[tid]); delete(@start[tid]); }}"
    )
    command = ["bpftrace", "-e", f'BEGIN {{ printf("begins\\n"); }} {script}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tracer:
        for line in tracer.stdout:
            if "begins" in line:
                break
        yield
        interrupt(tracer)


def cost(process, tracing):
    """Nanoseconds a call."""
    with tracing():
        process.stdin.write(f"{CALLS}\n")
        process.stdin.flush()
        return float(process.stdout.readline())


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "target"))
        subprocess.run(["gcc", "-O2", "-xc", "-", "-o", path], input=SOURCE, text=True, check=True)
        with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            ways = {
                BASELINE: (partial(bpftrace, path, process.pid), None),
                "usdtkit, return probe": (partial(pair, path, process.pid, "probes"), 1.0),
                "usdtkit, exits": (partial(pair, path, process.pid, "sites"), None),
                "nobody": (contextlib.nullcontext, None),
            }
            costs = medians(ROUNDS, {name: partial(cost, process, way) for name, (way, _) in ways.items()})
            process.stdin.close()
    return 0 if compare("a call", costs, BASELINE, {name: bound for name, (_, bound) in ways.items()}) else 1


if __name__ == "__main__":
    raise SystemExit(main())
