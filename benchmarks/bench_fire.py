"""What a probe costs: not traced, asked, traced; imported, loaded. Times, and ratios to a baseline.

Baselines of the same run: a call of an empty Python function, and a start of Python. `python benchmarks/bench_fire.py`;
the traced line needs root and bpftrace.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import timeit

CALLS, ROUNDS, STARTS = 500_000, 9, 20


def nanoseconds(statement, calls=CALLS, **names):
    """Best time of one execution in ns, the loop around it taken off."""
    loop = min(timeit.repeat("pass", number=calls, repeat=ROUNDS))
    return (min(timeit.repeat(statement, globals=names, number=calls, repeat=ROUNDS)) - loop) / calls * 1e9


def milliseconds(script):
    """Best time of a process of this Python that runs the script."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(STARTS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def traced(probe):
    """Time of a traced call in ns; None where this cannot be measured."""
    if os.geteuid() or not shutil.which("bpftrace"):
        return None
    program = f"usdt:{probe.path}:shop:order__start {{ @ = count(); }}"
    tracer = subprocess.Popen(["bpftrace", "-e", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not probe.enabled:
            if tracer.poll() is not None:
                return None
        return nanoseconds("probe(42, 'ada')", CALLS // 10, probe=probe)
    finally:
        tracer.terminate()
        tracer.wait()


def main():
    from usdtkit import Provider

    def empty(order_id, customer):
        pass

    shop = Provider("shop")
    probe = shop.probe("order__start", order_id="u64", customer="str")
    shop.load()
    baseline = nanoseconds("empty(42, 'ada')", empty=empty)
    rows = [
        ("empty Python function", baseline),
        ("probe(42, 'ada'), not traced", nanoseconds("probe(42, 'ada')", probe=probe)),
        ("probe.enabled", nanoseconds("probe.enabled", probe=probe)),
        ("probe(42, 'ada'), bpftrace counts", traced(probe)),
    ]
    for name, value in rows:
        measured = "not measured" if value is None else f"{value:8.1f} ns   x {value / baseline:6.2f}"
        print(f"{name:36}{measured}")

    nothing = milliseconds("pass")
    declared = (
        "from usdtkit import Provider; shop = Provider('shop'); shop.probe('order__start', order_id='u64'); shop.load()"
    )
    for name, script in (("import usdtkit", "import usdtkit"), ("import, declare, load", declared)):
        more = milliseconds(script) - nothing
        print(f"{name:36}{more:8.1f} ms   x {more / nothing:6.2f} of a start of Python ({nothing:.1f} ms)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["USDTKIT_DIR"] = directory
        main()
