"""What it costs to declare and load a provider of 50 probes whose file exists, against a bare dlopen of such a file.

Each round takes providers that this process has not mapped yet; medians, and their ratio. `python
benchmarks/bench_provider.py`.
"""

import os
import statistics
import subprocess
import sys
import tempfile

PROBES, PROVIDERS, PROCESSES = 50, 100, 7

# In a process of its own: what the parent has built is there, and nothing of it is mapped.
MEASURED = f"""
import statistics, sys, time
from usdtkit import Provider
from usdtkit._probe import load

def declare(name):
    provider = Provider(name)
    for number in range({PROBES}):
        provider.probe(f"order__{{number}}", order_id="u64", customer="str")
    return provider

kept = [declare("warm")]
kept[0].load()
times, kept = [], []
for number in range({PROVIDERS}):
    start = time.thread_time_ns()
    provider = declare(f"shop_{{number}}")
    declared = time.thread_time_ns()
    provider.load()
    times.append((time.thread_time_ns() - start, declared - start))
    kept.append(provider)
bare = []
for path in sys.argv[1:]:
    start = time.thread_time_ns()
    load(path, (), 0x90, 0, 0)
    bare.append(time.thread_time_ns() - start)
print(*map(statistics.median, (*zip(*times), bare)))
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
    print(f"declare {PROBES} probes, load what is there   {whole:8.1f} us   x {whole / opened:5.2f}")
    print(f"  of that, declaring                    {declared:8.1f} us   x {declared / opened:5.2f}")


if __name__ == "__main__":
    main()
