"""What it costs to find callers by tables of call frame information, as ratios to baselines of the same run.

A hit with a stack of 20 frames of mariadbd, whose packages have frame pointers, against the walk along these, and
against `perf record --call-graph dwarf`, which copies 8 KB of the stack at each hit. (That perf finds the callers
afterwards is not counted.) What ten frames of Python add to a stack. Then how long a start takes with stacks and
without, and how much memory all maps take for a process with node. It fails where a bound is missed. Needs root,
mariadbd, node and perf.
"""

import contextlib
import ctypes
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from common import figure, medians
from processes import byte_in_memory, end, eventually, read_until
from programs import mariadb

from usdtkit import trace
from usdtkit.targets import find_functions
from usdtkit.trace import running
from usdtkit.trace.pythonframes import KnownPythons

ROWS, ROUNDS = 20_000, 5
STATEMENT = f"SET @a = (SELECT SUM(seq) FROM mysql.seq_1_to_{ROWS} WHERE seq % 7 < 9)"
FUNCTION = "_ZN7handler13ha_index_nextEPh"  # called for each row
FRAMES = 20
MOST_OF_FRAME_POINTERS, MOST_MEMORY_MB, MOST_START_MS = 2.5, 32, 40
CALLS, PYTHON_FRAMES, MOST_PYTHON_NS = 20_000, 10, 3000
CPU_TIME = 2  # with the number of a process, the number of its clock; see clock_getcpuclockid(3)
BPF_ENABLE_STATS, BPF_MAP_GET_FD_BY_ID = 32, 14
BREAKPOINT = b"\xcc"
WAIT = "process.stdin.once('data', () => process.exit(0)); console.log('ready')"
DEEP = f"""
import os, sys

def deep(more):
    if more:
        return deep(more - 1)
    for _ in range({CALLS}):
        os.getppid()

print("ready", flush=True)
for _ in sys.stdin:
    deep({PYTHON_FRAMES - 2})
    print("done", flush=True)
"""
START = """
import sys, time
began = time.perf_counter()
from usdtkit import trace
with trace.Session(pid=int(sys.argv[1])) as session:
    session.uprobe("c", "pthread_mutex_lock").count(**({"stack": trace.ustack} if len(sys.argv) > 2 else {}))
    session.start()
    print(time.perf_counter() - began)
"""


def bpf(command, *words):
    """bpf(2), whose attributes begin with these numbers of 32 bits: a descriptor."""
    attributes = (ctypes.c_uint32 * 32)(*words)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(321, command, attributes, ctypes.sizeof(attributes))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return descriptor


def told(descriptor, name):
    """A number that the kernel tells of a descriptor; 0 where it has none of this name."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def in_program(session):
    """(runs, nanoseconds) of the program of a session that runs most often, as the kernel counts them."""
    return max((told(fd, "run_cnt"), told(fd, "run_time_ns")) for fd in session._running._loaded._programs.values())


def memory(session):
    """Bytes of all maps of a session."""
    maps = session._running._loaded.maps
    chunks = 0
    for number in range(maps["unwind_rows"].max_entries):
        with contextlib.suppress(KeyError):
            id = int.from_bytes(maps["unwind_rows"][number.to_bytes(4, "little")], "little")
            chunk = bpf(BPF_MAP_GET_FD_BY_ID, id)
            chunks += told(chunk, "memlock")
            os.close(chunk)
    return chunks + sum(told(each.fd, "memlock") for each in maps.values())


def uprobe_event(line):
    """Make or delete an event of tracefs."""
    events = os.open("/sys/kernel/tracing/uprobe_events", os.O_WRONLY | os.O_APPEND)
    os.write(events, line.encode())
    os.close(events)


@contextlib.contextmanager
def without_python():
    """Sessions that begin meanwhile find no Python in processes."""
    python, KnownPythons.python = KnownPythons.python, lambda known, pid: (0, 0)
    try:
        yield
    finally:
        KnownPythons.python = python


@contextlib.contextmanager
def along_frame_pointers():
    """Sessions that begin meanwhile walk as on a kernel that cannot walk by tables."""
    can_loop, running.can_loop = running.can_loop, lambda: False
    try:
        yield
    finally:
        running.can_loop = can_loop


class Rows:
    """A server, and a statement that calls a function ROWS times, each time below the same frames."""

    def __init__(self, server):
        self._server, self.pid = server, server.pid
        (self.function,) = find_functions("mariadbd", [FUNCTION], pids=(server.pid,))

    def cpu(self):
        """Nanoseconds of the server's CPU time a row."""
        clock = ~self.pid << 3 | CPU_TIME
        before = time.clock_gettime_ns(clock)
        self._server.query(STATEMENT)
        return (time.clock_gettime_ns(clock) - before) / ROWS

    def counted(self, stack):
        """(nanoseconds of a program's run at a hit, of the server's and our own CPU time a row)."""
        with trace.Session(pid=self.pid) as session:
            counts = session.uprobe("mariadbd", FUNCTION).count(**({"stack": trace.ustack} if stack else {}))
            session.start()
            own = time.process_time_ns()
            cpu = self.cpu()
            session.detach()
            ((key, count),) = counts.read().items()
            own = (time.process_time_ns() - own) / ROWS
            runs, spent = in_program(session)
            assert count == runs == ROWS, (count, runs)
            assert not stack or FRAMES - 1 <= len(key[0]) <= FRAMES, key
        return spent / runs, cpu, own

    def recorded(self):
        """Nanoseconds of CPU time a row, of the server and of perf, while that records the stack of each call."""
        name = f"usdtkit{os.getpid()}"
        uprobe_event(f"p:{name}/row {self.function.path}:{self.function.file_offset:#x}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                command = ["perf", "record", "-q", "-e", f"{name}:row", "--call-graph", "dwarf", "-p", str(self.pid)]
                perf = subprocess.Popen([*command, "-o", f"{folder}/data"], stderr=subprocess.PIPE)
                place = self.pid, self.function.path, self.function.file_offset
                eventually(lambda: byte_in_memory(*place), answer=BREAKPOINT)
                cpu = self.cpu()
                perf.send_signal(signal.SIGINT)
                said = perf.stderr.read()
                _, _, usage = os.wait4(perf.pid, 0)
                perf.returncode = 0
                assert b"lost" not in said, said
                return cpu + (usage.ru_utime + usage.ru_stime) * 1e9 / ROWS
        finally:
            uprobe_event(f"-:{name}/row")


def walks(server):
    """Print what a hit costs; whether the bound is kept."""
    rows, in_programs, hits = Rows(server), {}, {}

    def note(name, counted):
        program, *cpu = counted
        in_programs.setdefault(name, []).append(program)
        hits.setdefault(name, []).append(sum(cpu))

    statistics_of_programs = bpf(BPF_ENABLE_STATS, 0)
    for turn in range(ROUNDS + 1):
        note("untraced", (0, rows.cpu()))
        note("none", rows.counted(stack=False))
        note("tables", rows.counted(stack=True))
        with along_frame_pointers():
            note("pointers", rows.counted(stack=True))
        note("perf", (0, rows.recorded()))
        if not turn:  # the first fills caches
            in_programs.clear()
            hits.clear()
    os.close(statistics_of_programs)
    in_programs = {name: statistics.median(each) for name, each in in_programs.items()}
    hits = {name: statistics.median(each) - statistics.median(hits["untraced"]) for name, each in hits.items()}
    tables, pointers = in_programs["tables"], in_programs["pointers"]
    kept = figure("stack by tables", tables, "ns", "frame pointers", tables / pointers, MOST_OF_FRAME_POINTERS)
    for name, what in (
        ("none", "hit without stack"),
        ("pointers", "with, frame pointers"),
        ("tables", "with, by tables"),
    ):
        figure(f"CPU time: {what}", hits[name], "ns", "perf record", hits[name] / hits["perf"])
    return kept


def python_frames():
    """Print what Python's frames cost; whether the bound is kept."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(["/usr/bin/python3", "-c", DEEP], **pipes)

    def hit(frames):
        with trace.Session(pid=process.pid) as session:
            counts = session.uprobe("c", "getppid").count(stack=trace.ustack)
            session.start()
            process.stdin.write("\n")
            process.stdin.flush()
            read_until(process, "done")
            session.detach()
            ((key, count),) = counts.read().items()
            runs, spent = in_program(session)
            assert (count, runs, len(key[0].python)) == (CALLS, CALLS, frames), (count, runs, key)
        return spent / runs

    def hit_without():
        with without_python():
            return hit(0)

    statistics_of_programs = bpf(BPF_ENABLE_STATS, 0)
    try:
        read_until(process, "ready")
        spent = medians(ROUNDS, {"with": lambda: hit(PYTHON_FRAMES), "without": hit_without})
    finally:
        end(process)
        os.close(statistics_of_programs)
    figure("stack without Python's frames", spent["without"], "ns")
    return figure(f"  what {PYTHON_FRAMES} of them add", spent["with"] - spent["without"], "ns", bound=MOST_PYTHON_NS)


def starts(server):
    """Print how long a session takes until it is attached. There is a bound for a process that maps few files; the
    server has many, and each is looked at. The least counts, because the machine's other work only adds to it."""

    def least(pid, *words):
        command = [sys.executable, "-I", "-c", START, str(pid), *words]
        runs = [subprocess.run(command, text=True, capture_output=True, check=True) for _ in range(ROUNDS * 3)]
        return min(float(run.stdout) for run in runs) * 1e3

    with subprocess.Popen(["sleep", "infinity"]) as small:
        try:
            without, more = least(small.pid), least(small.pid, "stack")
        finally:
            small.kill()
    figure("a start without stacks", without, "ms")
    kept = figure("  what stacks add to it, few files", more - without, "ms", bound=MOST_START_MS)
    figure("  what stacks add to it, mariadbd", least(server.pid, "stack") - least(server.pid), "ms")
    return kept


def tables_of_node():
    """Print how much memory the maps take; whether the bound is kept."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(["node", "-e", WAIT], **pipes)
    try:
        read_until(process, "ready")
        with trace.Session(pid=process.pid) as session:
            session.uprobe("c", "malloc").count(stack=trace.ustack)
            session.start()
            return figure("all maps for a process with node", memory(session) / (1 << 20), "MB", bound=MOST_MEMORY_MB)
    finally:
        end(process)


def main():
    if os.geteuid():
        raise SystemExit("bench_unwinding: tracing needs root")
    with mariadb.server() as server:
        kept = [walks(server), python_frames(), starts(server), tables_of_node()]
    return not all(kept)


if __name__ == "__main__":
    sys.exit(main())
