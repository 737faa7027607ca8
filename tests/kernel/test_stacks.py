"""User stacks of real programs: known chains of calls, known counts, and names that outlive the process."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commandline import from_main
from processes import among_own_mounts

from usdtkit import trace
from usdtkit.trace import arg, ustack

FRAMES = "-fno-omit-frame-pointer"
CHAINS = {
    ("left", "main"): 997,
    ("deeper", "right", "main"): 997,
    ("descend", "descend", "descend", "main"): 997,
}


def names(stack):
    return tuple(frame.name for frame in stack)


def by_names(counts):
    """Counts by the names of the frames up to main, of whole stacks."""
    found = Counter()
    for (stack, *_), count in counts.read().items():
        assert stack.end == ""
        found[tuple(from_main(names(stack)[::-1])[::-1])] += count
    return found


def cut_by_names(counts):
    """The same of a process that was not known from the start: all before main may be missing."""
    found = Counter()
    for (stack, *_), count in counts.read().items():
        of = names(stack)
        found[of[: of.index("main") + 1]] += count
    return found


class Target:
    """A program that waits for a line before its work, and for another before its end."""

    def __init__(self, process, wait_for_line):
        self.process, self.pid, self._wait = process, process.pid, wait_for_line
        wait_for_line(process, "ready")

    def go(self, last):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._wait(self.process, last)

    def end(self):
        self.process.communicate("\n")
        return self.process.returncode


@pytest.fixture
def target(spawn, wait_for_line):
    return lambda *argv, **popen: Target(spawn(argv, **popen), wait_for_line)


@pytest.mark.parametrize("flags", [("-O2", FRAMES), ("-O2", FRAMES, "-no-pie"), ("-O0",), ("-O2", FRAMES, "-static")])
@pytest.mark.parametrize("function", ["work", "bare"])
def test_every_chain_is_counted_at_entry(flags, function, compile_c, target):
    path = compile_c("chains.c", *flags)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), function).count(stack=ustack)
        session.start()
        process.go("descend 997")
        assert by_names(counts) == {(function, *chain): count for chain, count in CHAINS.items()}
        assert session.summary().no_stack == 0


def test_the_stack_of_a_return_begins_with_the_caller(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uretprobe(str(path), "work").count(stack=ustack)
        session.start()
        process.go("descend 997")
        assert by_names(counts) == CHAINS


def test_events_carry_stacks(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path, 97)
    with trace.Session(pid=process.pid) as session:
        session.uprobe(str(path), "work").emit("ustack", n=trace.arg(1))
        session.start()
        process.go("descend 97")
        events = list(session.drain())
    assert [event.n for event in events] == [n for n in range(97) for _ in range(3)]
    assert [names(event.ustack)[1] for event in events] == ["left", "deeper", "descend"] * 97
    assert {event.ustack.pid for event in events} == {process.pid}
    assert len({event.ustack for event in events}) == 3


def test_a_pair_keeps_the_stack_of_its_start(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        pair = session.pair(trace.uprobe(str(path), "work"), keep={"calls": ustack})
        latencies = pair.hist("latency", "calls")
        session.start()
        process.go("descend 997")
        found = {names(stack)[1]: latency.count for (stack,), latency in latencies.read().items()}
    assert found == {"left": 997, "deeper": 997, "descend": 997}


@pytest.mark.parametrize("at_end", [False, True], ids=["start", "end"])
@pytest.mark.parametrize("flags", [("-O2", FRAMES), ("-O0",)])
def test_callers_whose_return_is_traced_too(flags, at_end, compile_c, target):
    """Their return addresses on the stack are the trampoline's: what was there before is what counts."""
    path = compile_c("chains.c", *flags)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        session.pair(trace.uprobe(str(path), "left", "right", "deeper", "descend", "main")).count()
        pair = session.pair(trace.uprobe(str(path), "work"), keep={"calls": ustack})
        counts = pair.count(stack=ustack) if at_end else pair.count("calls")
        session.start()
        process.go("descend 997")
        found = {chain if at_end else chain[1:]: count for chain, count in by_names(counts).items()}
    assert found == CHAINS


def test_callers_in_a_shared_library(compile_c, target, tmp_path):
    library = compile_c(
        'void called(void); void callback(void (*f)(void)) { f(); __asm__(""); }',
        "-shared",
        "-fPIC",
        "-O1",
        FRAMES,
        "-Wl,--allow-shlib-undefined",
    )
    (tmp_path / "libchain.so").symlink_to(library)
    main = """
#include "program.h"
void callback(void (*)(void));
NOINLINE void called(void) { __asm__(""); }
int main(void) {
    await_go();
    for (int i = 0; i < 997; i++) callback(called);
    puts("done"); fflush(stdout);
    await_go();
}
"""
    path = compile_c(main, "-O1", FRAMES, f"-L{tmp_path}", "-lchain", f"-Wl,-rpath,{tmp_path}")
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "called").count(stack=ustack)
        session.start()
        process.go("done")
        ((stack, count),) = [(stack, count) for (stack,), count in counts.read().items()]
    assert count == 997
    assert names(stack)[:3] == ("called", "callback", "main")
    assert [Path(frame.module).resolve() for frame in stack][:3] == [path, library, path]


def test_frames_equal_those_of_gdb(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path, 1)
    with trace.Session(pid=process.pid) as session:
        session.uprobe(str(path), "bare").emit("ustack")
        session.start()
        process.go("descend 1")
        ours = [[frame.name for frame in event.ustack] for event in session.drain()]
    script = ["-ex", "set debuginfod enabled off", "-ex", "break bare", "-ex", "run 1 </dev/null"]
    script += ["-ex", "bt", "-ex", "continue"] * 3
    said = subprocess.run(["gdb", "-q", "-batch", *script, path], capture_output=True, text=True).stdout
    gdbs = []
    for line in said.splitlines():
        if found := re.match(r"#(\d+) +(?:0x[0-9a-f]+ in )?(\w+)", line):
            if found[1] == "0":
                gdbs.append([])
            gdbs[-1].append(found[2])
    assert len(gdbs) == len(ours) == 3
    for mine, other in zip(ours, gdbs, strict=True):
        assert mine[: mine.index("main") + 1] == other[: other.index("main") + 1]


def test_names_of_a_process_that_ended_before_its_stacks_were_read(compile_c):
    path = compile_c("chains.c", "-O2", FRAMES, "-Wl,--build-id")
    with trace.Session() as session:
        at_work = session.uprobe(str(path), "work").count(stack=ustack)
        at_bare = session.uprobe(str(path), "bare").count(stack=ustack)
        session.start()
        subprocess.run([path, "997", "exit"], input="\n", text=True, capture_output=True, check=True)
        assert cut_by_names(at_work) == {("work", *chain): count for chain, count in CHAINS.items()}
        assert cut_by_names(at_bare) == {("bare", *chain): count for chain, count in CHAINS.items()}


def test_names_of_a_process_that_ended_and_whose_program_was_deleted(compile_c, target, tmp_path):
    path = tmp_path / "short-lived"
    path.write_bytes(compile_c("chains.c", "-O2", FRAMES, "-Wl,--build-id=none").read_bytes())
    path.chmod(0o755)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        path.unlink()
        process.go("descend 997")
        assert process.end() == 0
        assert by_names(counts) == {("work", *chain): count for chain, count in CHAINS.items()}


def test_stacks_outlive_the_session(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        process.go("descend 997")
        stacks = [stack for (stack,) in counts.read()]
    assert {names(stack)[1] for stack in stacks} == {"left", "deeper", "descend"}


def test_frames_in_pages_that_are_not_in_memory(compile_c, target):
    path = compile_c("pagedout.c", "-O0", "-pthread")
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        process.go("done")
        found = {names(stack)[:4]: count for (stack,), count in counts.read().items()}
    assert found == {("work", "inner", "outer", "thread"): 997}


def test_columns_carry_stacks(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path, 97)
    with trace.Session(pid=process.pid) as session:
        session.uprobe(str(path), "work").emit("ustack", "comm", n=trace.arg(1))
        session.start()
        process.go("descend 97")
        (columns,) = session.drain_columns()
    assert list(columns["n"]) == [n for n in range(97) for _ in range(3)]
    assert [names(stack)[1] for stack in columns["ustack"]] == ["left", "deeper", "descend"] * 97


def test_a_program_without_python_has_no_python_function_that_called(compile_c, target):
    path = compile_c("chains.c", "-O2", FRAMES)
    process = target(path)
    with trace.Session(pid=process.pid) as session:
        work = session.uprobe(str(path), "work")
        counts, sizes = work.count("pycaller"), work.hist(trace.pid, "pycaller")
        work.where(trace.arg(1) == 0).emit("pycaller", "ustack")
        pair = session.pair(trace.uprobe(str(path), "bare"), keep={"called": trace.pycaller})
        pair.emit("called")
        session.start()
        process.go("descend 997")
        assert counts.read() == {(None,): 3 * 997}
        assert [(key, values.count) for key, values in sizes.read().items()] == [((None,), 3 * 997)]
        events = list(session.drain())
        assert len(events) == 3 + 3 * 997
        assert all(isinstance(event.ustack, trace.Stack) for event in events if event.probe == "work")
        assert {event.pycaller if event.probe == "work" else event.called for event in events} == {None}


def test_only_what_a_condition_lets_through_needs_a_stack(compile_c, target):
    path = compile_c("paths.c", "-O0")
    process = target(path, 12, 1)
    with trace.Session(pid=process.pid) as session:
        work = session.uprobe(str(path), "work")
        work.where(trace.tid == 0).emit("ustack", text=trace.cstr(trace.arg(1), 256))
        session.start()
        process.go("stacks 4096")
        summary = session.summary()
    assert (summary.hits, summary.no_stack, summary.received) == (4096, 0, 0)


def test_many_distinct_stacks_while_they_are_read(compile_c, target):
    path = compile_c("paths.c", "-O0")
    process = target(path, 11, 3)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.uprobe(str(path), "await_go").emit("tid")
        session.start()
        process.process.stdin.write("\n\n")
        process.process.stdin.flush()
        for _ in session:
            pass
        found = counts.read()
        summary = session.summary()
    assert process.process.stdout.readline() == "stacks 2048 hits 6144\n"
    assert set(found.values()) == {3}
    assert len({stack.addresses for (stack,) in found}) == len(found) == 2048
    assert (summary.no_stack, summary.hits) == (0, 6144 + 1)
    assert summary.stacks == 2048


def test_stacks_without_room_are_counted(compile_c, target):
    path = compile_c("paths.c", "-O0")
    process = target(path, 12, 1)
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        process.go("stacks 4096")  # nobody takes the definitions meanwhile
        found = counts.read()
        untaken = found.pop((None,))
        assert untaken == session.summary().no_stack > 0
        assert set(found.values()) == {1}
        assert len(found) + untaken == 4096
        assert session.summary().stacks == len(found)


def test_a_32_bit_process_has_no_stacks(compile_c, spawn):
    source = """
void work(int n) { __asm__ volatile("" :: "r"(n)); }
void _start(void) {
    char c;
    int got, wrote;
    do {
        __asm__ volatile("int $0x80" : "=a"(got) : "a"(3), "b"(0), "c"(&c), "d"(1) : "memory");
        for (int i = 0; i < 97; i++) work(i);
        __asm__ volatile("int $0x80" : "=a"(wrote) : "a"(4), "b"(1), "c"(&c), "d"(got) : "memory");
    } while (got > 0);
    __asm__ volatile("int $0x80" :: "a"(1), "b"(0));
}
"""
    path = compile_c(source, "-m32", "-O0", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pie", "-no-pie")
    process = spawn([path])
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "\n"
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "\n"
        assert counts.read() == {(None,): 97}
        assert session.summary().no_stack == 97


PYTHONS = [path for v in ("3.12", "3.13") for path in Path.home().glob(f".pyenv/versions/{v}.*/bin/python{v}")]
PYTHON_SOURCE = """
import sys
def inner(i):
    return i + 1
def outer(i):
    return inner(i)
print("ready", flush=True)
sys.stdin.readline()
for i in range(997):
    outer(i)
print("done", flush=True)
sys.stdin.readline()
"""
IN_A_CONTAINER = (
    *("unshare", "--pid", "--fork", "--kill-child"),
    *among_own_mounts('mount -t proc proc /proc && mount -t tmpfs none /tmp && exec "$@"'),
    "sh",
)


if PYTHONS:  # Debian's own is older, and writes no perf map

    @pytest.mark.parametrize("prefix", [(), IN_A_CONTAINER], ids=["host", "container"])
    @pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.name)
    def test_python_functions_by_the_perf_map(python, prefix, target):
        process = target(*prefix, python, "-X", "perf", "-c", PYTHON_SOURCE)
        pid = process.pid if not prefix else child_of(process.pid)
        library = next((python.parents[1] / "lib").glob("libpython3.*.so.1.0"), python)
        with trace.Session(pid=pid) as session:
            counts = session.uprobe(str(library), "_PyEval_EvalFrameDefault").count(stack=ustack)
            session.start()
            process.go("done")
            found = Counter()
            for (stack,), count in counts.read().items():
                assert stack.frames[0].name == "_PyEval_EvalFrameDefault"
                found[stack.frames[1].name] += count
        process.end()
        Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)
        assert found["py::inner:<string>"] == found["py::outer:<string>"] == 997


def child_of(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


NODE_SOURCE = """
function inner() { return %GetOptimizationStatus(outer); }
function outer() { return inner(); }
process.stdin.once('data', () => {
  for (let i = 0; i < 997; i++) outer();
  console.log('done');
  process.stdin.once('data', () => process.exit(0));
});
console.log('ready');
"""
# The names that V8 gives to functions of JavaScript, by how they were compiled.
JAVASCRIPT = re.compile(r"(?:JS|LazyCompile|Function):[~*^]?(\w+) ")
NODE_OPTIONS = ("--perf-basic-prof", "--interpreted-frames-native-stack", "--allow-natives-syntax")


def test_javascript_functions_by_the_perf_map(target, tmp_path):
    process = target("node", *NODE_OPTIONS, "-e", NODE_SOURCE, cwd=tmp_path)
    # Called by the code that V8 makes, so that nothing compiled without frame pointers lies between.
    called = "_ZN2v88internal29Runtime_GetOptimizationStatusEiPmPNS0_7IsolateE"
    mapped = Path(f"/proc/{process.pid}/maps").read_text()
    library = next(iter(re.findall(r"/\S*/libnode\.so\S*", mapped)), "node")  # Debian's program is a small one
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(library, called).count(stack=ustack)
        session.start()
        process.go("done")
        assert process.end() == 0  # V8 writes the last of its map when it ends
        found = Counter()
        for (stack,), count in counts.read().items():
            script = [name[1] for frame in stack if (name := JAVASCRIPT.match(frame.name))]
            found[tuple(script[:2])] += count
    Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)
    assert found == {("inner", "outer"): 997}


NODE_WRITES = """
const fs = require('fs');
const nowhere = fs.openSync('/dev/null', 'w');
function inner() { return fs.writeSync(nowhere, 'x'); }
function outer() { return inner(); }
process.stdin.once('data', () => {
  for (let i = 0; i < 997; i++) outer();
  console.log('done');
  process.stdin.once('data', () => process.exit(0));
});
console.log('ready');
"""


def test_javascript_functions_between_whole_native_stacks(target, tmp_path):
    """Node's own code is walked by tables, V8's by frame pointers, and then Node's again up to the process's start."""
    # A function that was put into its caller would have no frame.
    process = target("node", *NODE_OPTIONS[:2], "--no-opt", "-e", NODE_WRITES, cwd=tmp_path)
    found, ends = Counter(), Counter()
    with trace.Session(pid=process.pid) as session:
        # V8 writes its map meanwhile, and console.log its line: more than one byte.
        counts = session.uprobe("c", "write").where(arg(3) == 1).count(stack=ustack)
        session.start()
        process.go("done")
        assert process.end() == 0
        for (stack,), count in counts.read().items():
            names = [JAVASCRIPT.match(frame.name) for frame in stack]
            script = [name[1] for name in names if name]
            if "inner" in script:
                found[tuple(script[:3])] += count
                has_others = not any(names[:2])  # functions of Node before the first of JavaScript
                ends[stack.end, stack.frames[0].name, has_others] += count
    Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)
    assert found == {("writeSync", "inner", "outer"): 997}
    assert ends == {("", "write", True): 997}
