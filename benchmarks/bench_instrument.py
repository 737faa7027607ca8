"""What the probes of the language cost: installed and not traced, and a call that is traced, as ratios of the same run.

`python benchmarks/bench_instrument.py` measures the interpreter that runs it. Baselines: the same program without the
probes; two hits of the same site in a C loop, counted by the same session; cProfile; a sys.setprofile callback that
does nothing. Medians over rounds in which all take turns, in time of the processor.
"""

import cProfile
import os
import statistics
import subprocess
import sys
import tempfile
import time

from bench_fire import InC
from common import figure

from usdtkit import Provider, trace
from usdtkit import run as run_command

ROUNDS, CALLS, STARTS = 61, 3_000, 15
PROVIDER, PLACES = "python", ("function__entry", "function__return")

# Calls, attributes, containers, strings, exceptions: answers each line with the seconds that one round took.
PROGRAM = """
import sys, time

class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def length(self):
        return self.x * self.x + self.y * self.y

def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

def work():
    fibonacci(15)
    total = sum(Point(number, 1).length() for number in range(2000))
    words = sorted(str(number) for number in range(2000))
    for word in words:
        try:
            {}[word]
        except KeyError:
            total += len(word)
    return total

for _ in range(20):
    work()
print("ready", flush=True)
for line in sys.stdin:
    began = time.thread_time()
    for _ in range(5):
        work()
    print(time.thread_time() - began, flush=True)
"""


def leaf():
    pass


def call_loop():
    """Nanoseconds of one call of a function that does nothing."""
    began = time.thread_time_ns()
    for _ in range(CALLS):
        pass
    empty = time.thread_time_ns() - began
    began = time.thread_time_ns()
    for _ in range(CALLS):
        leaf()
    return (time.thread_time_ns() - began - empty) / CALLS


def profiled():
    profile = cProfile.Profile()
    profile.enable()
    try:
        return call_loop()
    finally:
        profile.disable()


def called_back():
    sys.setprofile(lambda frame, event, arg: None)
    try:
        return call_loop()
    finally:
        sys.setprofile(None)


class Worker:
    """PROGRAM in a process of its own."""

    def __init__(self, environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, **pipes)
        self.process.stdout.readline()

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) * 1e3


def bare():
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def instrumented():
    paths = [str(run_command.SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return bare() | {"USDTKIT_INSTRUMENT": PROVIDER, "PYTHONPATH": os.pathsep.join(paths)}


def turns(rounds, *measures):
    """The median of each, and the medians of the ratios to the first."""
    taken = [[measure() for measure in measures] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*taken, strict=True)]
    ratios = [statistics.median(row[at] / row[0] for row in taken) for at in range(len(measures))]
    return medians, ratios


def untraced():
    workers = [Worker(bare()), Worker(instrumented())]
    (_, with_probes), (_, ratio) = turns(ROUNDS, *workers)
    for worker in workers:
        worker.process.communicate()
    kept = figure("a program with the probes, not traced", with_probes, "ms", "without them", ratio, 1.02)

    def start(environment):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], env=environment, check=True)
        return (time.perf_counter() - began) * 1e3

    start(instrumented())  # leaves compiled files
    (_, started), (_, ratio) = turns(STARTS, lambda: start(bare()), lambda: start(instrumented()))
    figure("start of Python with the probes", started, "ms", "without them", ratio)
    return kept


def traced(directory):
    from usdtkit.instrument import python

    bare = statistics.median(call_loop() for _ in range(ROUNDS))
    profile = statistics.median(profiled() for _ in range(ROUNDS))
    callback = statistics.median(called_back() for _ in range(ROUNDS))
    python.install()
    path = str(Provider(PROVIDER).files[0])
    with trace.Session() as session:
        for place in PLACES:
            session.usdt(f"{PROVIDER}:{place}").count()
        # A site of the same file that no hook of ours has to do with, for the loop in C.
        session.usdt(f"{PROVIDER}:thread__start", path).count()
        session.start()
        while not python.traced() >= set(PLACES):
            time.sleep(0.01)
        loop = InC(directory, path, f"{PROVIDER}_thread__start")
        (hit, call), (_, ratio) = turns(ROUNDS, loop, call_loop)
        loop.close()
    figure("a call, bare", bare, "ns")
    kept = figure("a call, entry and return counted", call, "ns", "two hits in a C loop", ratio / 2, 1.5)
    figure("", call, "ns", "a call under cProfile", call / profile)
    figure("", call, "ns", "a call with an idle setprofile", call / callback)
    figure("a call under cProfile", profile, "ns", "a call, bare", profile / bare)
    figure("two hits in a C loop", 2 * hit, "ns", "a call, bare", 2 * hit / bare)
    return kept


def main():
    with tempfile.TemporaryDirectory() as directory:
        os.environ["USDTKIT_DIR"] = os.environ["USDTKIT_CACHE"] = directory
        print(f"CPython {sys.version.split()[0]}, Linux {os.uname().release}, {os.uname().machine}; medians")
        kept = untraced()
        if os.geteuid() == 0:
            kept &= traced(directory)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
