"""What it costs to follow what starts while a trace runs, and how soon a new file is traced.

`python benchmarks/bench_discovery.py` needs root, gcc and systemtap-sdt-dev. Baselines of the same run: a session that
does not discover, for the CPU time at 200 execs a second and for the time of a hit; a detachment, for the time from the
start of a program in a new file to its first hit. On a machine that others load, single files may take longer.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import HERE, PROBE, figure, workplace

from usdtkit import trace

FILES, SECONDS, EXECS = 15, 4.0, 200
# Hits the probe from its first instruction on, and says when it was there and when the probe was first armed.
FIRES = """
#include <stdio.h>
#include <sys/sdt.h>
#include <time.h>
#include <unistd.h>
static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}
int main(void) {
  printf("%ld\\n", now());
  fflush(stdout);
  for (long until = now() + 1000000000L; now() < until; usleep(100)) DTRACE_PROBE1(bench, hit, 7);
}
"""


def first_hits(folder):
    """Seconds from the start of a program in a new file to its first hit, for copies of one program."""
    program = Path(folder, "fires")
    subprocess.run(["gcc", "-O2", "-xc", "-", "-o", program], input=FIRES, text=True, check=True)
    taken = []
    with trace.Session(discover=True) as session:
        session.usdt(PROBE).where(trace.comm.matches("copy*")).emit()
        session.start()
        for number in range(FILES):
            copy = shutil.copy(program, Path(folder, f"copy{number}"))
            process = subprocess.Popen([copy], stdout=subprocess.PIPE, text=True)
            began = int(process.stdout.readline())
            first = None
            for event in session:
                if event.pid == process.pid:
                    first = event.time_ns
                    break
            process.kill()
            process.communicate()
            list(session.drain())
            taken.append((first - began) / 1e9)
    return taken


def attachment(target):
    """Seconds that a session takes to attach to one file and to detach, without what comes before."""
    with trace.Session() as session:
        session.usdt(PROBE, path=target.path).count()
        session.start()
        began = time.perf_counter()
        session.detach()
        return time.perf_counter() - began


def execs(stop):
    """Start 200 programs a second, until told to stop."""
    began, count = time.monotonic(), 0
    while not stop.is_set():
        subprocess.run(["/bin/true"], check=True)
        count += 1
        time.sleep(max(0.0, began + count / EXECS - time.monotonic()))


# The tracer in a process of its own, because this one starts the programs. It says how much CPU time it has used.
TRACER = f"""
import sys, time
from usdtkit import trace
with trace.Session(discover=sys.argv[1] == "1") as session:
    session.usdt("{PROBE}", path=sys.argv[2]).count()
    if sys.argv[1] == "1":
        session.usdt("{PROBE}").count()
    session.start()
    time.sleep(6)  # until it is calm
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.process_time()
    sys.stdin.readline()
    print(time.process_time() - began, flush=True)
"""


def share(target, discover):
    """The CPU time of a tracer in a second with so many execs."""
    words = [sys.executable, "-c", TRACER, str(int(discover)), target.path]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    stop = threading.Event()
    load = threading.Thread(target=execs, args=(stop,))
    load.start()
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(SECONDS)
    process.stdin.write("\n")
    process.stdin.flush()
    used = float(process.stdout.readline())
    stop.set()
    load.join()
    process.communicate()
    return used / SECONDS


def hits(target, discover):
    """Nanoseconds a hit."""
    with trace.Session(discover=discover) as session:
        session.usdt(PROBE, path=target.path).count()
        session.start()
        target.fire(10_000)
        return statistics.median(target.fire(20_000) for _ in range(5))


def main():
    """Measure all, and print a line for each; whether all keep their bounds."""
    with workplace() as target, tempfile.TemporaryDirectory(dir=HERE) as folder:
        detached = attachment(target)
        taken = first_hits(folder)
        followed, alone = share(target, discover=True), share(target, discover=False)
        costs = [hits(target, discover=discover) for discover in (True, False)]
    middle, slowest = statistics.median(taken), max(taken)
    kept = [
        figure("a new file, from its start to its first hit", middle * 1e3, "ms", "200 ms", middle / 0.2, 0.5),
        figure("the slowest of these", slowest * 1e3, "ms", "200 ms", slowest / 0.2),
        figure("the first of these again", middle * 1e3, "ms", "a detachment", middle / detached),
        figure("discovering, at 200 execs a second", followed * 100, "%", "", None, 3),
        figure("not discovering, at 200 execs a second", alone * 100, "%"),
        figure("a hit while discovering", costs[0], "ns", "a hit without", costs[0] / costs[1], 1.1),
    ]
    return all(kept)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(HERE.parent)
    sys.exit(not main())
