"""What probes and spans cost, each as a ratio to a baseline of the same run: not traced, asked, traced; imported.

Medians over rounds in which baseline and measured take turns. `python benchmarks/bench_fire.py`; the traced lines need
root, and are counted by one BPF program that stays attached.
"""

import contextlib
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

# Short and many, and in time of the processor: a shared machine disturbs few of them.
CALLS, TRACED_CALLS, ROUNDS, STARTS = 20_000, 3_000, 101, 15

# The same site fired from C: what the kernel takes, without an interpreter.
LOOP = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv) {
    void (*stub)(uint64_t, uint64_t) = dlsym(dlopen(argv[1], RTLD_NOW), argv[2]);
    char line[8];
    while (fgets(line, sizeof line, stdin)) {
        struct timespec start, end;
        long calls = atol(argv[3]);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
        for (long call = 0; call < calls; call++) stub(42, (uint64_t)argv[1]);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        printf("%f\\n", ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / calls);
        fflush(stdout);
    }
}
"""


class Wrapped:
    """A probe as libstapsdt's wrapper for Python makes one: ctypes, a byte read and a call through C for each fire."""

    def __init__(self, fire, probe):
        self._fire, self._probe = fire, probe

    def fire(self, *arguments):
        self._fire(self._probe, *arguments)


def baseline_by_ctypes(directory):
    """Of our own writing: fire(struct *, …) checks the first byte, then passes on its arguments."""
    source = Path(directory, "wrapped.c")
    source.write_text(
        "#include <stdarg.h>\n#include <stdint.h>\n"
        "struct probe { unsigned char *site; int count; };\n"
        "void fire(struct probe *p, ...) {\n"
        "  if ((*p->site & 0x90) == 0x90) return;\n"
        "  va_list list; uint64_t a[6]; va_start(list, p);\n"
        "  for (int i = 0; i < p->count; i++) a[i] = va_arg(list, uint64_t);\n"
        "  va_end(list); ((void (*)(uint64_t, uint64_t))p->site)(a[0], a[1]);\n}\n"
    )
    library = Path(directory, "wrapped.so")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    code = ctypes.create_string_buffer(b"\x90\xc3")

    class Probe(ctypes.Structure):
        _fields_ = (("site", ctypes.c_void_p), ("count", ctypes.c_int))

    probe = Probe(ctypes.addressof(code), 2)
    return Wrapped(ctypes.CDLL(str(library)).fire, ctypes.byref(probe)), (code, probe)


def nanoseconds(statement, calls=CALLS, **names):
    """One timing of one execution in ns."""
    return timeit.timeit(statement, timer=time.thread_time, globals=names, number=calls) / calls * 1e9


def medians(*measured, rounds=ROUNDS):
    """The median of each of several measurements that take turns."""
    rounds = [[each() for each in measured] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def show(what, value, baseline, target=None, unit="ns"):
    ratio = value / baseline
    verdict = "" if target is None else f"   (at most {target:g}{'' if ratio <= target else ': MISSED'})"
    print(f"{what:52}{value:9.1f} {unit}   x {ratio:6.2f}{verdict}")


def untraced(probe, directory):
    def empty(order_id, customer):
        pass

    wrapped, _alive = baseline_by_ctypes(directory)
    loop, call, fire, asked, lazy, old = medians(
        lambda: nanoseconds("pass"),
        lambda: nanoseconds("empty(42, 7)", empty=empty),
        lambda: nanoseconds("probe(42, 7)", probe=probe),
        lambda: nanoseconds("probe.enabled", probe=probe),
        lambda: nanoseconds("probe.lazy(make)", probe=probe, make=lambda: (42, 7)),
        lambda: nanoseconds("wrapped.fire(42, 7)", wrapped=wrapped),
    )
    call, fire, asked, lazy, old = (value - loop for value in (call, fire, asked, lazy, old))
    show("empty Python function of two arguments", call, call)
    show("probe(42, 7), not traced", fire, call, 0.8)
    show("probe.lazy(function), not traced", lazy, call)
    show("the same by ctypes, as libstapsdt's wrapper does it", old, call)
    print(f"{'':52}{'':12}   x {old / fire:6.2f} of ours   (at least 15{'' if old / fire >= 15 else ': MISSED'})")
    show("probe.enabled, to the call", asked, fire, 1.2)


def untraced_spans(shop):
    """Spans and traced functions that nobody traces, to the same code without them."""

    def function(number):
        return number

    def generator():
        yield 1

    async def coroutine():
        return 1

    def run(coroutine):
        with contextlib.suppress(StopIteration):
            coroutine.send(None)

    wrapped = {f"traced_{each.__name__}": shop.traced(each) for each in (function, generator, coroutine)}
    names = {
        **locals(),
        **wrapped,
        "nullcontext": contextlib.nullcontext,
        "payment": shop.define_span("payment", id="u64"),
    }
    shop.load()
    costs = medians(
        *[
            lambda statement=statement: nanoseconds(statement, CALLS // 2, **names)
            for statement in (
                "pass",
                "function(7)",
                "traced_function(7)",
                "for _ in generator(): pass",
                "for _ in traced_generator(): pass",
                "run(coroutine())",
                "run(traced_coroutine())",
                "with nullcontext(): pass",
                "with payment(42): pass",
                "with shop.span('payment', id=42): pass",
            )
        ]
    )
    loop, call, traced_call, started, traced_start, awaited, traced_await, block, declared, named = costs
    call, traced_call = call - loop, traced_call - loop
    print()
    show("a call of a Python function", call, call)
    show("the same with @shop.traced, not traced", traced_call, call, 1.6)
    show("a generator from start to end", started, started)
    show("the same with @shop.traced, not traced", traced_start, started, 1.5)
    show("a coroutine from start to end", awaited, awaited)
    show("the same with @shop.traced, not traced", traced_await, awaited, 1.5)
    show("with contextlib.nullcontext()", block, block)
    show("with a span of define_span, not traced", declared, block, 1.0)
    show("with shop.span('payment', id=42), not traced", named, block, 1.3)


class InC:
    """The C program above, on the same site."""

    def __init__(self, directory, path, symbol):
        source, program = Path(directory, "loop.c"), Path(directory, "loop")
        source.write_text(LOOP)
        subprocess.run(["gcc", "-O2", source, "-o", program], check=True)
        command = [program, path, symbol, str(TRACED_CALLS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.communicate()


def traced(directory):
    """Fires while one session counts; the sites with either nop take turns too."""
    from usdtkit import Provider, trace

    programs, fires = [], []
    with trace.Session() as session:
        for nop in ("safe", "fast"):
            shop = Provider(f"bench_{nop}", nop=nop)
            numbers = shop.probe("numbers", order_id="u64", status="i64")
            named = shop.probe("named", order_id="u64", customer="str")
            shop.load()
            path = str(shop.files[0])
            session.usdt(f"bench_{nop}:numbers", path).count()
            session.usdt(f"bench_{nop}:named", path).count()
            programs.append(InC(directory, path, f"bench_{nop}_numbers"))
            fires.append(lambda numbers=numbers: nanoseconds("probe(42, 7)", TRACED_CALLS, probe=numbers))
            fires.append(lambda named=named: nanoseconds("probe(42, 'ada')", TRACED_CALLS, probe=named))
        session.start()
        loop, fast_loop, numbers, named, fast, _ = medians(*programs, *fires)
        for program in programs:
            program.close()
    print()
    show("the site in a C loop, counted", loop, loop)
    show("probe(42, 7), counted", numbers, loop, 1.3)
    show("probe(42, 'ada'), counted", named, loop, 1.4)
    show("the fast site in a C loop, to the safe one", fast_loop, loop)
    show("probe(42, 7) with nop=fast, to the safe one", fast, numbers, 0.6 if fast_loop < 0.9 * loop else None)


# Answers each line with the nanoseconds of one query and of one acquired lock. A process that has ever had a second
# thread, as services have, pays for the locks of libc in each query; the one that watches for tracers is a thread too.
LIBRARIES = """
import sqlite3, sys, threading, time
for _ in range(int(sys.argv[1])):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
cursor, lock = sqlite3.connect(":memory:").cursor(), threading.Lock()
def nanoseconds(calls):
    began = time.thread_time_ns()
    for _ in range(calls):
        cursor.execute("SELECT 1")
    executed = time.thread_time_ns()
    for _ in range(calls):
        with lock:
            pass
    return (executed - began) / calls, (time.thread_time_ns() - executed) / calls
for line in sys.stdin:
    print(*nanoseconds(int(line)), flush=True)
"""


def libraries():
    """What the probes of two libraries cost a program that nobody traces, to the same program without them."""
    from usdtkit import run as run_command

    bare = {name: value for name, value in os.environ.items() if not name.startswith("USDTKIT_INSTRUMENT")}
    paths = [str(run_command.SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    probed = bare | {"USDTKIT_INSTRUMENT": "dbapi,locks", "PYTHONPATH": os.pathsep.join(paths)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    programs = (bare, "1"), (probed, "1"), (bare, "0"), (probed, "0")
    commands = [([sys.executable, "-c", LIBRARIES, threads], environment) for environment, threads in programs]

    def ask(worker):
        worker.stdin.write(f"{TRACED_CALLS}\n")
        worker.stdin.flush()
        return [float(each) for each in worker.stdout.readline().split()]

    rounds = []
    for _ in range(STARTS):  # where a process has its memory makes a difference too
        workers = [subprocess.Popen(command, env=environment, **pipes) for command, environment in commands]
        rounds += [[ask(worker) for worker in workers] for _ in range(ROUNDS // STARTS)]
        for worker in workers:
            worker.communicate()
    print()
    for at, what, bound in ((0, "a query of sqlite3", 1.15), (1, "a Lock", 1.3)):
        bare, probed, alone, joined = (statistics.median(each[worker][at] for each in rounds) for worker in range(4))
        show(f"{what}, bare", bare, bare)
        show(f"{what} under --with dbapi,locks", probed, bare, bound)
        show(f"{what} of a program without threads, bare", alone, bare)
        show(f"{what} of a program without threads, --with …", joined, alone)


def milliseconds(script):
    """One start of this Python with the script, in time of the processor."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = os.posix_spawn(sys.executable, [sys.executable, "-c", script], environment)
    _, status, used = os.wait4(started, 0)
    if status:
        raise SystemExit(f"{script}: status {status}")
    return (used.ru_utime + used.ru_stime) * 1e3


def main():
    from usdtkit import Provider

    with tempfile.TemporaryDirectory() as directory:
        os.environ["USDTKIT_DIR"] = directory
        shop = Provider("shop")
        probe = shop.probe("order__start", order_id="u64", customer="i64")
        shop.load()
        print(f"CPython {sys.version.split()[0]}, Linux {os.uname().release}, {os.uname().machine}; medians")
        untraced(probe, directory)
        untraced_spans(shop)
        if os.geteuid() == 0 and shutil.which("gcc"):
            traced(directory)
        libraries()
        declared = "from usdtkit import Provider; s = Provider('shop'); s.probe('order', order_id='u64'); s.load()"
        nothing, imported, loaded = medians(
            lambda: milliseconds("pass"),
            lambda: milliseconds("from usdtkit import Provider"),
            lambda: milliseconds(declared),
            rounds=STARTS,
        )
        print()
        show("start of Python", nothing, nothing, unit="ms")
        show("from usdtkit import Provider", imported - nothing, nothing, 1.0, unit="ms")
        show("import, declare, load", loaded - nothing, nothing, unit="ms")


if __name__ == "__main__":
    main()
