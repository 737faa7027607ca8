"""What it costs to declare and load a provider of 50 probes whose file exists, against a bare dlopen of such a file.

The two take turns, each time with a file that this process has not mapped yet; medians of several processes, and their
ratio. `python benchmarks/bench_provider.py`.
"""

import os
import statistics
import subprocess
import sys
import tempfile

PROBES, PROVIDERS, PROCESSES = 50, 100, 7
MOST = 5

# In a process of its own: what the parent has built is there, and nothing of it is mapped.
MEASURED = f"""
import statistics, sys, time
from usdtkit import Provider
from usdtkit._probe import load

# An application has them as literals.
NAMES = [f"order__{{number}}" for number in range({PROBES})]

def declare(name):
    provider = Provider(name)
    for name in NAMES:
        provider.probe(name, order_id="u64", customer="str")
    return provider

def bare(path):
    start = time.thread_time_ns()
    load(path, (), 0x90, 0, 0)
    return time.thread_time_ns() - start

kept = [declare("warm")]
kept[0].load()
times, opened, kept = [], [], []
for number, path in enumerate(sys.argv[1:]):
    # Who comes first has colder caches: they take turns in that too.
    if number % 2:
        opened.append(bare(path))
    start = time.thread_time_ns()
    provider = declare(f"shop_{{number}}")
    declared = time.thread_time_ns()
    provider.load()
    times.append((time.thread_time_ns() - start, declared - start))
    if not number % 2:
        opened.append(bare(path))
    kept.append(provider)
print(*map(statistics.median, (*zip(*times), opened)))
"""


def main():
    with tempfile.TemporaryDirectory() as directory:
        os.environ["USDTKIT_DIR"] = directory
        from usdtkit import Provider

        paths = []
        for kind in ("warm", *(f"shop_{number}" for number in range(PROVIDERS)), *(f"b_{n}" for n in range(PROVIDERS))):
            provider = Provider(kind)
            for number in range(PROBES):
                provider.probe(f"order__{number}", order_id="u64", customer="str")
            paths.append(str(provider.build()))
        bare = paths[1 + PROVIDERS :]
        rounds = []
        for _ in range(PROCESSES):
            command = [sys.executable, "-c", MEASURED, *bare]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rounds.append(list(map(float, printed.split())))
        whole, declared, opened = (statistics.median(column) / 1e3 for column in zip(*rounds, strict=True))
    print(f"bare dlopen of a file of {PROBES} probes      {opened:8.1f} us")
    ratio = whole / opened
    verdict = f"(at most {MOST:g}{'' if ratio <= MOST else ': MISSED'})"
    print(f"declare {PROBES} probes, load what is there   {whole:8.1f} us   x {ratio:5.2f}   {verdict}")
    print(f"  of that, declaring                    {declared:8.1f} us   x {declared / opened:5.2f}")


if __name__ == "__main__":
    main()
