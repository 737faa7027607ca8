"""What a line of text for each event costs the tracer: `trace` and `dbslower`, and bpftrace's printf of the same text.

The CPU time of the tracer's process, user and system, for an event, at three paces; its output goes to a file. Nothing
is to be lost, in the best of the rounds: on a machine with other work, any tracer may have to wait longer than its
buffer lasts. Needs root, gcc, bpftrace and systemtap-sdt-dev.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import HERE, figure, interrupt

# Events a second, and how many of them.
PACES = {1_000: 2_003, 10_000: 20_011, 100_000: 200_003}
ROUNDS, FEW = 3, 13
DIFFERENT = max(PACES.values())
READY_S, QUIET_S = 60, 0.5
USDTKIT = [sys.executable, "-m", "usdtkit"]

HIT = """usdt:{path}:bench:hit {{
  printf("%s %7d %-16s %-24s n=%d text=%s\\n", strftime("%H:%M:%S", nsecs), pid, comm, probe, arg0, str(arg1)); }}"""
QUERY = """usdt:{path}:mysql:query__start {{ @start[tid] = nsecs; @text[tid] = str(arg0); }}
usdt:{path}:mysql:query__done /@start[tid]/ {{
  $ns = nsecs - @start[tid];
  printf("%s %7d %5d.%02d %-8s %-5s %s\\n", strftime("%H:%M:%S", nsecs), pid, $ns / 1000000, $ns / 10000 % 100, "query",
         "?", @text[tid]); delete(@start[tid]); delete(@text[tid]); }}"""
SPEC = 'bench:hit "n=%d text=%s", arg1, arg2'

# For each kind of event: the baseline, and what is compared with it, by name: the command, the texts, and the bound.
HITS = {
    "bpftrace, printf": (["bpftrace", "-e", HIT], FEW, None),
    "usdtkit trace": ([*USDTKIT, "trace", SPEC], FEW, 1.0),
    "usdtkit trace --json": ([*USDTKIT, "trace", SPEC, "--json"], FEW, 1.3),
    "usdtkit trace --csv": ([*USDTKIT, "trace", SPEC, "--csv"], FEW, None),
}
QUERIES = {
    "bpftrace, printf at the end of a pair": (["bpftrace", "-e", QUERY], FEW, None),
    "usdtkit dbslower --raw-text": ([*USDTKIT, "dbslower", "mysql", "-m", "0", "--raw-text"], FEW, 1.0),
    "usdtkit dbslower": ([*USDTKIT, "dbslower", "mysql", "-m", "0"], FEW, 1.0),
    "usdtkit dbslower, no text twice": ([*USDTKIT, "dbslower", "mysql", "-m", "0"], DIFFERENT, None),
}


class Target:
    """paced.c as a process, by the name of a server."""

    def __init__(self, path):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()
        self.pid, self.path = self._process.pid, path

    def fire(self, times, rate, texts):
        self._process.stdin.write(f"{times} {rate} {texts}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self):
        self._process.communicate()


def cpu_ns(pid):
    """The CPU time of a process so far: clock_getcpuclockid(3) of it."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def lines(path):
    """How many events a file shows: a line may have the text of one twice."""
    return sum(b"sbtest1" in line for line in Path(path).read_bytes().splitlines())


@contextlib.contextmanager
def tracing(command, target, folder):
    """A tracer that has shown its first event, and the files of its output and messages."""
    command = [word.format(path=target.path) for word in command]
    output, messages = f"{folder}/output", f"{folder}/messages"
    with Path(output).open("w") as out, Path(messages).open("w") as err:
        tracer = subprocess.Popen([*command, "-p", str(target.pid)], stdout=out, stderr=err)
    try:
        until = time.monotonic() + READY_S
        while not lines(output):
            if time.monotonic() > until or tracer.poll() is not None:
                raise SystemExit(f"{command[0]} shows no event: {Path(messages).read_text()}")
            target.fire(10, 1000, FEW)
            time.sleep(QUIET_S)
        yield tracer, output, messages
    finally:
        interrupt(tracer)


def settled(tracer, output):
    """The number of events that a file shows once the tracer has nothing to do any more."""
    busy = QUIET_S * 1e9
    while busy > QUIET_S * 1e9 / 10:
        since = cpu_ns(tracer.pid)
        time.sleep(QUIET_S)
        busy = cpu_ns(tracer.pid) - since
    return lines(output)


def measure(command, texts, target, folder):
    """By pace, the CPU nanoseconds of the tracer for an event that it shows, and the events that it does not."""
    costs, missing = {}, {}
    with tracing(command, target, folder) as (tracer, output, _):
        for rate, times in PACES.items():
            before, since = settled(tracer, output), cpu_ns(tracer.pid)
            target.fire(times, rate, texts)
            shown = settled(tracer, output) - before
            costs[rate] = (cpu_ns(tracer.pid) - since) / max(shown, 1)
            missing[rate] = times - shown
    return costs, missing


def compare(consumers, target, folder):
    """Print the figures of all consumers; whether all bounds are kept."""
    taken = {name: [] for name in consumers}
    for _ in range(ROUNDS):
        for name, (command, texts, _) in consumers.items():
            taken[name].append(measure(command, texts, target, folder))
    baseline, kept = next(iter(consumers)), []
    for rate in PACES:
        median = {name: statistics.median(costs[rate] for costs, _ in each) for name, each in taken.items()}
        for name, (_, _, bound) in consumers.items():
            what, ratio = f"CPU an event, {rate:,}/s: {name}", median[name] / median[baseline]
            kept.append(figure(what, median[name], "ns", baseline, ratio, bound))
    for name, (_, _, bound) in consumers.items():
        lost = min(max(missing.values()) for _, missing in taken[name])
        kept.append(figure(f"events not shown: {name}", lost, "", bound=None if bound is None else 0))
    return all(kept)


def main():
    if os.geteuid():
        raise SystemExit("bench_lines: tracing needs root")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"USDTKIT_CACHE": f"{folder}/bytecode", "BPFTRACE_STRLEN": "64"}
        path = f"{folder}/mysqld"
        subprocess.run(["gcc", "-O2", "-no-pie", "-o", path, HERE / "paced.c"], check=True)
        target = Target(path)
        try:
            kept = [compare(consumers, target, folder) for consumers in (HITS, QUERIES)]
        finally:
            target.close()
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
