"""How long a tracer needs to its first event, and how much memory: usdtkit, bcc and bpftrace on the same look-ups.

The target calls getaddrinfo in a loop until the tracer has written the first of them; the time is from the tracer's
start to that line. Medians, and ratios to usdtkit in the same run. bcc's own tool needs kernel headers: it is lent
ours, and the one constant that it wants of linux/sched.h. bpftrace's own script traces three functions (ours eight);
the other is the least that shows a look-up. Needs root; what is not installed is left out. At the end, how long a shell
waits for what completes a word.
"""

import contextlib
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import interrupt

ROUNDS = 11
HEADERS = Path(__file__).parents[1] / "usdtkit" / "bpf" / "headers"
HOST = "127.0.0.97"
TARGET = f"import socket, time\nwhile True: socket.getaddrinfo('{HOST}', 80); time.sleep(0.001)"
BPFTRACE = """uprobe:{libc}:getaddrinfo {{ @start[tid] = nsecs; @host[tid] = arg0; }}
uretprobe:{libc}:getaddrinfo /@start[tid]/ {{
  printf("%-6d %-16s %d %s\\n", pid, comm, (nsecs - @start[tid]) / 1000000, str(@host[tid]));
  delete(@start[tid]); delete(@host[tid]); }}"""


def tracers():
    """Name → command, of those that are installed."""
    libc = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so.6" in line)
    found = {"usdtkit gethostlatency": [str(Path(sys.executable).with_name("usdtkit")), "gethostlatency"]}
    for name, command in (
        ("bcc gethostlatency", ["gethostlatency-bpfcc"]),
        ("bpftrace gethostlatency.bt", ["bpftrace", shutil.which("gethostlatency.bt") or ""]),
        ("bpftrace, getaddrinfo only", ["bpftrace", "-e", BPFTRACE.format(libc=libc)]),
    ):
        if shutil.which(command[0]) and all(command):
            found[name] = command
    return found


@contextlib.contextmanager
def lent_headers():
    """The environment for all tracers; bcc compiles with our headers in it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HEADERS, folder, dirs_exist_ok=True)
        Path(folder, "include/linux/sched.h").write_text("#define TASK_COMM_LEN 16\n")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield environment | {"BCC_KERNEL_SOURCE": folder, "PYTHONUNBUFFERED": "1"}


def measure(command, environment, looking_up):
    """(seconds to the first event, MiB resident then, seconds to leave after Ctrl-C, while nothing happens)."""
    started = time.perf_counter()
    tracer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    try:
        seen = b""
        while HOST.encode() not in seen:
            if not select.select([tracer.stdout], [], [], 60)[0] or not (
                more := os.read(tracer.stdout.fileno(), 65536)
            ):
                raise SystemExit(f"{command[0]} showed no event")
            seen += more
        first = time.perf_counter() - started
        status = Path(f"/proc/{tracer.pid}/status").read_text()
        resident = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        looking_up.send_signal(signal.SIGSTOP)  # bcc loses a Ctrl-C that comes while it handles an event
        ended = time.perf_counter()
        interrupt(tracer)
        return first, resident, time.perf_counter() - ended
    finally:
        looking_up.send_signal(signal.SIGCONT)
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()


@contextlib.contextmanager
def target():
    """A process that looks up HOST all the time."""
    process = subprocess.Popen([sys.executable, "-c", TARGET])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def completion():
    """Print how long a TAB takes, beside a start of Python that does nothing."""
    words = {"": [], "-p mar": ["process", "mar"], "c:mal": ["place", "c:mal"], "mysql:": ["place", "mysql:"]}
    command = [str(Path(sys.executable).with_name("usdtkit")), "completion", "--offer"]
    times = {name: [] for name in words}
    for _ in range(ROUNDS):
        for name, asked in words.items():
            began = time.perf_counter()
            subprocess.run([*command, *asked] if asked else [sys.executable, "-I", "-c", ""], stdout=subprocess.PIPE)
            times[name].append(time.perf_counter() - began)
    baseline = statistics.median(times.pop(""))
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{f'TAB after {name}':28}{middle * 1e3:9.0f} ms   x {middle / baseline:5.2f} of a start of Python")


def main():
    if os.geteuid():
        raise SystemExit("bench_start: tracing needs root")
    with lent_headers() as environment, target() as looking_up:
        results = {name: [] for name in tracers()}
        for _ in range(ROUNDS + 1):  # the first fills caches and is not counted
            for name, command in tracers().items():
                results[name].append(measure(command, environment, looking_up))
    medians = {
        name: [statistics.median(column) for column in zip(*each[1:], strict=True)] for name, each in results.items()
    }
    baseline = next(iter(medians.values()))
    print(f"{'':28}{'first event':>22}{'resident':>22}{'leaving':>22}")
    for name, (first, resident, leaving) in medians.items():
        cells = [(first * 1e3, "ms"), (resident, "MiB"), (leaving * 1e3, "ms")]
        units = [baseline[0] * 1e3, baseline[1], baseline[2] * 1e3]
        print(f"{name:28}" + "".join(f"{v:9.0f} {u:3}  x {v / b:5.2f}" for (v, u), b in zip(cells, units, strict=True)))
    completion()


if __name__ == "__main__":
    main()
