"""What a traced call costs: look-ups with and without gethostlatency, and with bcc's and a bpftrace one.

The target is a C program that looks up a numeric address and a name in /etc/hosts, again and again, and measures the
time of its processor that this takes. Best of several rounds, and ratios to the same calls untraced, in the same run.
Needs root and gcc; a tracer that is not installed is left out.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_start import leave, lent_headers, tracers

ROUNDS = 7
SOURCE = """
#include <netdb.h>
#include <stdio.h>
#include <time.h>
static double look_up(const char *host, int flags, int times) {
    struct timespec a, b;
    struct addrinfo hints = {.ai_flags = flags}, *list;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    for (int i = 0; i < times; i++)
        if (getaddrinfo(host, 0, &hints, &list) == 0)
            freeaddrinfo(list);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / times;
}
int main(void) {
    printf("%.0f %.0f\\n", look_up("127.0.0.97", AI_NUMERICHOST, 20000), look_up("localhost", 0, 2000));
    return 0;
}"""
"""What the target prints: nanoseconds a call, numeric and by name."""


@contextlib.contextmanager
def traced(command, environment):
    """The tracer has attached, because it has shown the first of some calls."""
    tracer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    trigger = [sys.executable, "-c", "import socket\nwhile True: socket.getaddrinfo('127.0.0.1', 80)"]
    trigger = subprocess.Popen(trigger)
    try:
        shown = b""
        while b"127.0.0.1" not in shown:
            shown += os.read(tracer.stdout.fileno(), 65536)
        trigger.kill()
        # What it prints goes nowhere, as quickly as it can be read.
        sink = subprocess.Popen(["cat"], stdin=tracer.stdout, stdout=subprocess.DEVNULL)
        yield
    finally:
        trigger.kill()
        trigger.wait()
        tracer.stdout.close()
        leave(tracer)
        sink.wait()


def measure(binary):
    return [float(word) for word in subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()]


def main():
    if os.geteuid():
        raise SystemExit("bench_tools: tracing needs root")
    with tempfile.TemporaryDirectory() as folder, lent_headers() as environment:
        binary = Path(folder, "target")
        subprocess.run(["gcc", "-O2", "-xc", "-", "-o", binary], input=SOURCE, text=True, check=True)
        results = {"untraced": [], **{name: [] for name in tracers()}}
        for _ in range(ROUNDS):
            results["untraced"].append(measure(binary))
            for name, command in tracers().items():
                with traced(command, environment):
                    results[name].append(measure(binary))
    best = {name: [min(column) for column in zip(*each, strict=True)] for name, each in results.items()}
    numeric, by_name = best["untraced"]
    print(f"{'':28}{'numeric address':>22}{'name in /etc/hosts':>22}")
    for name, (first, second) in best.items():
        print(f"{name:28}{first:10.0f} ns  x {first / numeric:5.2f}{second:10.0f} ns  x {second / by_name:5.2f}")


if __name__ == "__main__":
    main()
