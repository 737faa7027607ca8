"""What the benchmarks share: the target that fires on request, bcc made to run, and one line for each figure.

Input: benchmarks/target.c, compiled for each run. A figure is a ratio of two medians of one run, beside the bound that
it is to keep: times alone say little on a machine that others use as well.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from usdtkit import targets

HERE = Path(__file__).parent
HEADERS = HERE.parent / "usdtkit" / "bpf" / "headers"
PROBE = "bench:hit"


class Target:
    """target.c as a process: `pid`, `path`."""

    def __init__(self, process, path):
        self.pid, self.path = process.pid, path
        self._process = process
        process.stdout.readline()
        [probe] = targets.find_probes(PROBE, path=path)
        self._address = probe.sites[0].address

    def is_traced(self):
        """Whether a breakpoint is at the probe now."""
        with Path(f"/proc/{self.pid}/mem").open("rb") as memory:
            memory.seek(self._address)
            return memory.read(1) == b"\xcc"

    def send(self, times, texts=13):
        """Tell it to fire, so many texts taking turns."""
        self._process.stdin.write(f"{times} {texts}\n")
        self._process.stdin.flush()

    def fired(self):
        """Wait for it; (times, nanoseconds of CPU time a hit)."""
        _, times, _, nanoseconds = self._process.stdout.readline().split()
        return int(times), int(nanoseconds) / int(times)

    def fire(self, times, texts=13):
        """Nanoseconds of CPU time a hit."""
        self.send(times, texts)
        return self.fired()[1]


@contextlib.contextmanager
def workplace():
    """A target, with what this process and its children need to run bcc: its module, and headers lent by us."""
    if os.geteuid():
        raise SystemExit(f"{Path(sys.argv[0]).name}: tracing needs root")
    sys.path.append("/usr/lib/python3/dist-packages")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HEADERS, Path(folder, "headers"))
        # What bcc's own tools and its USDT code want besides.
        Path(folder, "headers/include/linux/sched.h").write_text("#define TASK_COMM_LEN 16\n")
        with Path(folder, "headers/include/linux/types.h").open("a") as types:
            for bits in (8, 16, 32, 64):
                types.write(f"typedef u{bits} uint{bits}_t; typedef s{bits} int{bits}_t;\n")
        os.environ |= {"BCC_KERNEL_SOURCE": f"{folder}/headers", "USDTKIT_CACHE": f"{folder}/bytecode"}
        path = f"{folder}/target"
        subprocess.run(["gcc", "-O2", "-no-pie", "-o", path, HERE / "target.c"], check=True)
        process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Target(process, path)
        finally:
            process.kill()
            process.communicate()


def interrupt(tracer):
    """Press Ctrl-C until a tracer ends, and return the rest of its output: bpftrace and bcc may miss the first one."""
    while True:
        tracer.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return tracer.communicate(timeout=2)[0]


def medians(rounds, measures):
    """Name → median of the rounds, for a mapping of names to functions.

    They take turns, so that a busy moment of the machine meets all of them. The first round fills caches and is not
    counted.
    """
    taken = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if turn:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def figure(name, value, unit, baseline="", ratio=None, bound=None):
    """Print one figure; whether it keeps its bound: one of its ratio to the baseline, or without that of itself."""
    compared = value if ratio is None else ratio
    kept = bound is None or compared <= bound
    against = "" if ratio is None else f"   x {ratio:7.4f} of {baseline}"
    aim = (
        ""
        if bound is None
        else f"   at most {bound:g}{'' if ratio is not None else ' ' + unit}: {'kept' if kept else 'MISSED'}"
    )
    print(f"{name:44}{value:12,.1f} {unit:5}{against:36}{aim}", flush=True)
    return kept


def compare(what, costs, baseline, bounds):
    """Print the cost of each way as a ratio to the baseline's; whether all keep their bounds (None: has none)."""
    kept = [
        figure(f"{what} costs: {name}", cost, "ns", baseline, cost / costs[baseline], bounds[name])
        for name, cost in costs.items()
    ]
    return all(kept)
