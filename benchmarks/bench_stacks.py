"""What stacks cost: names for 10,000 addresses, a counted stack a hit. Times, and ratios to a baseline of the run.

Baselines: addr2line on the same addresses; bpftrace's `@[ustack] = count()` on the same program.
`python benchmarks/bench_stacks.py`; the second part needs root, gcc and bpftrace.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable

ADDRESSES, CALLS, ROUNDS, REPEATS = 10_000, 100_000, 5, 3
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
volatile long sum;
__attribute__((noinline, noclone)) void work(long n) { sum += n; }
__attribute__((noinline, noclone)) void descend(int depth, long n)
{
    if (depth > 0)
        descend(depth - 1, n);
    else
        work(n);
    sum++;
}
int main(int argc, char **argv)
{
    long calls = atol(argv[1]);
    for (int c = getchar(); c != EOF; c = getchar()) {
        struct timespec start, end;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
        for (long i = 0; i < calls; i++)
            descend(10, i);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        printf("%f\n", ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / calls);
        fflush(stdout);
    }
}
"""


def names(path):
    """Seconds to name the addresses, the symbol table included, by us and by addr2line."""
    with Image.open(path) as image:
        section = image.section(".text")
    generator = random.Random(997)
    addresses = [section.address + generator.randrange(section.size) for _ in range(ADDRESSES)]

    start = time.perf_counter()
    with Image.open(path) as image:
        table = SymbolTable(image)
    named = sum(table.find(address) is not None for address in addresses)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    text = "\n".join(f"{address:#x}" for address in addresses)
    subprocess.run(["addr2line", "-f", "-e", path], input=text, text=True, capture_output=True, check=True)
    return ours, time.perf_counter() - start, named


class Calls:
    """The program, which says what a call costs it."""

    def __init__(self, path):
        self.process = subprocess.Popen([path, str(CALLS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
        self._work = next(int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(" T work"))

    def is_traced(self):
        """Whether there is a breakpoint on work()."""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(self._work)
            return memory.read(1) == b"\xcc"

    def cost(self):
        costs = []
        for _ in range(ROUNDS):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            costs.append(float(self.process.stdout.readline()))
        return min(costs)  # all else is the machine's other work

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def ours(path, calls, *keys, **more):
    with trace.Session(pid=calls.pid) as session:
        counts = session.uprobe(path, "work").count(*keys, **more)
        session.start()
        cost = calls.cost()
        assert sum(counts.read().values()) == ROUNDS * CALLS
    return cost


def bpftraces(path, calls, key):
    program = f"uprobe:{path}:work {{ @{key} = count(); }}"
    command = ["bpftrace", "-p", str(calls.pid), "-e", program]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not calls.is_traced():
            if tracer.poll() is not None:
                raise SystemExit("bpftrace ended before it was attached")
            time.sleep(0.01)
        return calls.cost()
    finally:
        tracer.terminate()
        tracer.wait()


def main():
    for path in ("/usr/bin/node", "/usr/sbin/mariadbd"):
        if Path(path).exists():
            own, other, named = names(path)
            what = f"{ADDRESSES:,} addresses of {Path(path).name}, {named:,} named"
            print(f"{what:52}{own * 1e3:8.0f} ms   x {own / other:5.2f} of addr2line ({other * 1e3:.0f} ms)")
    if os.geteuid() or not shutil.which("bpftrace") or not shutil.which("gcc"):
        print("a stack a hit: not measured")
        return
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/calls"
        flags = [
            "-O1",
            "-fno-omit-frame-pointer",
            "-no-pie",
            "-mno-omit-leaf-frame-pointer",
            "-fno-optimize-sibling-calls",
        ]
        subprocess.run(["gcc", "-xc", "-", *flags, "-o", path], input=PROGRAM, text=True, check=True)
        calls = Calls(path)
        try:
            rounds = [
                (
                    calls.cost(),
                    ours(path, calls),
                    ours(path, calls, stack=trace.ustack),
                    bpftraces(path, calls, ""),
                    bpftraces(path, calls, "[ustack]"),
                )
                for _ in range(REPEATS)
            ]
            untraced, plain, stack, theirs, their_stack = map(min, zip(*rounds, strict=True))
        finally:
            calls.end()
        for what, cost, other in (
            ("a counted hit", plain, theirs),
            ("a counted hit by its stack of 14 frames", stack, their_stack),
            ("the stack alone", stack - plain, their_stack - theirs),
        ):
            cost, other = (cost, other) if "alone" in what else (cost - untraced, other - untraced)
            print(f"{what:52}{cost:8.0f} ns   x {cost / other:5.2f} of bpftrace ({other:.0f} ns)")


if __name__ == "__main__":
    sys.exit(main())
