"""Python's own frames in stacks, of every CPython that is here and started as it is: each stack of a hit equals what
the program itself says of its stack before it."""

import json
import os
import re
import socket
import struct
import subprocess
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

import psycopg
import pytest
from pythons import everywhere

from usdtkit import processes, trace
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.trace import ustack
from usdtkit.unwind.pythons import Pythons

PROGRAM = Path(__file__).parents[1] / "programs" / "pyframes.py"
DEEPEST = "the limit of 127 frames"
every_python = pytest.mark.parametrize("version", everywhere())


def libc_of(pid):
    return next(each.name for each in executable_mappings(maps_of(pid)) if "libc.so" in each.name)


def until(session, events, count, of=list):
    """Read until there are so many events, or so many of what `of` makes of them; the test's own check fails where they
    do not come."""
    deadline = time.monotonic() + 20
    while len(of(events)) < count and time.monotonic() < deadline:
        session.poll(events.append, timeout=0.1)
    session.poll(events.append, timeout=0.1)


def python_frames(frames):
    return [(frame.name, frame.file, frame.line) for frame in frames if frame.kind == "python"]


def go(process, line=""):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def views_of(process):
    """What the program says of its stacks, in order, for each thread."""
    views = defaultdict(list)
    for line in process.stdout:
        if line.strip() == "done":
            return views
        view = json.loads(line)
        views[view["tid"]].append([(name, file, line) for name, file, line, n in view["frames"] for _ in range(n)])
    raise AssertionError("the program has ended")


@every_python
def test_every_stack_is_what_the_program_says(version, ready):
    process = ready([everywhere()[version], PROGRAM, "hits", 997])
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), "getppid").emit("tid", "ustack")
        session.start()
        go(process)
        views = views_of(process)
        go(process)
        assert process.wait(20) == 0  # nothing is read before it has ended
        stacks = defaultdict(list)
        for event in session.drain():
            stacks[event.tid].append(event.ustack)
        summary = session.summary()
    assert (summary.hits, summary.received, summary.lost, summary.no_stack) == (997, 997, 0, 0)
    assert {tid: list(map(python_frames, map(list, each))) for tid, each in stacks.items()} == views
    for stack in {id(stack): stack for each in stacks.values() for stack in each}.values():
        assert stack.python_end == ""
        assert python_frames(stack.python) == python_frames(stack)
        assert stack.frames[0].name == "getppid"
        left = [frame.name for frame in stack if frame.name.startswith("_PyEval_EvalFrameDefault")]
        assert left == []
        # Python functions are between native frames, unless the native walk has come to its limit.
        assert (stack.frames[-1].kind == "native") == (stack.native_end != DEEPEST)


@every_python
def test_children_that_are_forked(version, ready):
    script = """
import os, select, sys
def hit():
    os.getppid()
def child():
    while not select.select([0], [], [], 0.01)[0]:
        os.getppid()  # by which is seen that it is traced
    os.read(0, 1)
    for _ in range(97):
        hit()
    os._exit(0)
print("ready", flush=True)
os.read(0, 1)
for _ in range(3):
    os.fork() or child()
for _ in range(3):
    os.wait()
hit()
"""

    def hits(events):
        return [event for event in events if event.ustack.python[0].name == "hit"]

    process = ready([everywhere()[version], "-c", script])
    with trace.Session(pid=process.pid, follow=True) as session:
        session.uprobe(libc_of(process.pid), "getppid").emit("pid", "ustack")
        session.start()
        events = []
        go(process)
        until(session, events, 3, lambda events: {event.pid for event in events})
        go(process, "go")  # a byte for each of them
        until(session, events, 3 * 97 + 1, hits)
    expected = [("hit", "<string>", 4), ("child", "<string>", 10), ("<module>", "<string>", 15)]
    found = Counter((event.pid, tuple(python_frames(event.ustack))) for event in hits(events))
    assert found.pop((process.pid, (("hit", "<string>", 4), ("<module>", "<string>", 18)))) == 1
    assert len({pid for pid, _ in found}) == 3
    assert {frames for _, frames in found} == {tuple(expected)}
    assert set(found.values()) == {97}


LARGE = """
import os, sys
def define(name, file):
    space = {}
    lines = "\\n".join(["    os.getppid()", *["    n = len(str(n)) + 1"] * 3000, "    os.getppid()"])
    exec(compile("import os\\ndef %s(n=0):\\n%s" % (name, lines), file, "exec"), space)
    return space[name]
print("ready", flush=True)
sys.stdin.readline()
define("x" * 300, "/y" * 300)()
define("文" * 200, "/書" * 200)()
"""


def test_names_and_tables_that_are_too_long(ready):
    """What is left of them is shown, from the kernel as from outside."""
    process = ready(["/usr/bin/python3", "-c", LARGE])
    with trace.Session(pid=process.pid) as session:
        session.uprobe("c", "getppid").emit("ustack")
        session.start()
        go(process)
        assert process.wait(20) == 0
        found = [python_frames(event.ustack)[0] for event in session.drain()]
    ascii, wide = ("x" * 254 + "…", "/y" * 255 + "…"), ("文" * 126 + "…", "/書" * 127 + "…")
    assert found == [(*ascii, 3), (*ascii, None), (*wide, 3), (*wide, None)]


DAMAGED = """
import os, sys
def inner():
    print("ready", flush=True)
    for line in sys.stdin:
        os.getppid()
        print("hit", flush=True)
def middle():
    inner()
def outer():
    middle()
outer()
"""


class Damaged:
    """A process that stops between two calls, while its memory is written to."""

    def __init__(self, process):
        self.process, self.python = process, Pythons().of(process.pid)
        self.layout = self.python.build.layout
        self.memory = os.open(f"/proc/{process.pid}/mem", os.O_RDWR)
        self.state = self.at(self.at(self.python.runtime + self.layout.interpreters) + self.layout.threads)
        frame = self.at(self.state + self.layout.thread_frame)
        self.frames = [self.at(frame + self.layout.indirect - 1) if self.layout.indirect else frame]
        while len(self.frames) < 3:
            self.frames.append(self.at(self.frames[-1] + self.layout.previous))

    def at(self, address):
        return struct.unpack("<Q", os.pread(self.memory, 8, address))[0]

    def hit(self, *written):
        """A call while other numbers are at some addresses."""
        before = [(address, self.at(address)) for address, _ in written]
        for address, value in written:
            os.pwrite(self.memory, struct.pack("<Q", value), address)
        go(self.process)
        assert self.process.stdout.readline() == "hit\n"
        for address, value in before:
            os.pwrite(self.memory, struct.pack("<Q", value), address)

    def close(self):
        os.close(self.memory)


@pytest.mark.parametrize("version", [next(v for v in everywhere() if v.startswith(each)) for each in ("3.11",)])
def test_a_process_that_damages_its_own_structures(version, ready):
    """The walk ends, says why, and does no harm."""
    process = ready([everywhere()[version], "-c", DAMAGED])
    damaged = Damaged(process)
    layout, (inner, middle, outer), state = damaged.layout, damaged.frames, damaged.state
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), "getppid").emit("ustack")
        session.start()
        damaged.hit()
        damaged.hit((middle + layout.previous, inner))
        damaged.hit((outer + layout.previous, outer))
        damaged.hit((middle + layout.previous, 8))
        damaged.hit((middle + layout.code, 0xDEAD0000))
        damaged.hit((middle + layout.code, (1 << 64) - 16))
        damaged.hit((state + layout.thread_id, 8))
        damaged.hit((state + layout.thread_id, 8), (state + layout.thread_next, state))
        damaged.hit((damaged.python.runtime + layout.interpreters, 0xDEAD0000))
        damaged.hit()
        damaged.close()
        process.stdin.close()
        assert process.wait(20) == 0
        found = [
            (event.ustack.python_end or "", [frame.name for frame in event.ustack.python]) for event in session.drain()
        ]
    whole = ("", ["inner", "middle", "outer", "<module>"])
    unreadable = "unreadable memory"
    assert found[0] == found[-1] == whole
    assert found[1] == (DEEPEST, (["inner", "middle"] * 64)[:127])
    assert found[2] == (DEEPEST, ["inner", "middle", *["outer"] * 125])
    assert found[3] == (unreadable, ["inner", "middle"])
    assert found[4] == found[5] == (unreadable, ["inner"])
    assert found[6] == ("", [])  # it looks like a thread of C
    assert found[7] == found[8] == (unreadable, [])
    assert len(found) == 10


def test_a_process_that_damages_its_names(ready):
    """Names that are none are left out, and all functions are there."""
    process = ready(["/usr/bin/python3", "-c", DAMAGED])
    damaged = Damaged(process)
    layout = damaged.layout
    code = damaged.at(damaged.frames[2] + layout.code)
    name, lines = damaged.at(code + layout.name), damaged.at(code + layout.lines)
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), "getppid").emit("ustack")
        session.start()
        damaged.hit((code + layout.name, 8))  # no memory
        damaged.hit((code + layout.name, lines))  # bytes, and no str
        damaged.hit((code + layout.file, 0xDEAD0000))
        damaged.hit((code + layout.lines, 8))
        damaged.hit((code + layout.lines, name))
        damaged.hit((lines + 16, (1 << 63) - 1), (code + layout.first_line, 0x7FFFFFFF))
        damaged.hit((name + 16, 1 << 62), (code + layout.first_line, 0))  # a length
        damaged.hit((name + 32, (1 << 32) - 1), (code + layout.first_line, 0))  # characters of 7 bytes
        damaged.close()
        process.stdin.close()
        assert process.wait(20) == 0
        stacks = [event.ustack for event in session.drain()]
    assert [[frame.name for frame in stack.python[:2]] for stack in stacks] == [["inner", "middle"]] * 8
    assert [stack.python[3].name for stack in stacks] == ["<module>"] * 8
    assert [stack.python_end for stack in stacks] == [""] * 8
    outer = [stack.python[2] for stack in stacks]
    assert [frame.name for frame in outer[:1] + outer[2:6]] == ["", *["outer"] * 4]
    assert outer[2].file == ""
    assert all(len(frame.name) < 256 for frame in outer)


EMBEDDING = r"""
#include <Python.h>
#include <pthread.h>
#include <unistd.h>
static void *without_python(void *n) {
  for (int i = 0; i < 97; i++) getppid();
  return n;
}
static void *with_python(void *n) {
  for (int i = 0; i < 97; i++) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyRun_SimpleString("call()");
    PyGILState_Release(state);
  }
  return n;
}
int main(void) {
  Py_Initialize();
  PyRun_SimpleString("import os\ndef hit():\n    os.getppid()\n\ndef call():\n    hit()\n");
  PyThreadState *state = PyEval_SaveThread();
  puts("ready");
  fflush(stdout);
  getchar();
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, i % 2 ? with_python : without_python, 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  PyEval_RestoreThread(state);
  PyRun_SimpleString("call()");
  return 0;
}
"""


def test_python_within_a_program_of_c(ready, compile_c):
    """Threads that begin to run Python, and end it, again and again; and threads that never do."""
    flags = subprocess.check_output(["python3-config", "--embed", "--includes", "--ldflags"], text=True).split()
    source = compile_c(EMBEDDING, "-O2", *(flag for flag in flags if flag.startswith("-I")), "-c")
    program = source.with_suffix(".embedding")
    subprocess.run(["gcc", source, "-o", program, *(flag for flag in flags if not flag.startswith("-I"))], check=True)
    process = ready([program])
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(libc_of(process.pid), "getppid").count(stack=ustack)
        session.start()
        go(process)
        assert process.wait(20) == 0
        found = Counter()
        for (stack,), count in counts.read().items():
            found[tuple(python_frames(stack))] += count
            assert not stack.python_end
    called = (("hit", "<string>", 3), ("call", "<string>", 6), ("<module>", "<string>", 1))
    assert found == {(): 2 * 97, called: 2 * 97 + 1}


PL = """CREATE FUNCTION hit(times int) RETURNS int LANGUAGE plpython3u AS $$
import os
def call():
    os.getppid()
for _ in range(times):
    call()
return times
$$"""


@pytest.mark.parametrize("is_loaded", [True, False], ids=["before", "meanwhile"])
def test_python_within_postgresql(is_loaded, postgres):
    """PL/Python; a backend loads the interpreter when it is first used."""
    with psycopg.connect(host=postgres.environment["PGHOST"], user="postgres", autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS plpython3u")
        connection.execute("DROP FUNCTION IF EXISTS hit")
        connection.execute(PL)
        if is_loaded:
            connection.execute("SELECT hit(1)")
        with trace.Session(pid=connection.info.backend_pid) as session:
            session.uprobe("c", "getppid").emit("ustack")
            session.start()
            events = []
            if not is_loaded:  # the stack that leads to code that is not known yet
                connection.execute("SELECT hit(1)")
                until(session, events, 1)
            connection.execute("SELECT hit(97)")
            until(session, events, 97 + (not is_loaded))
    found = Counter(tuple((re.sub(r"_\d+", "", f.name), f.line) for f in event.ustack.python) for event in events[-97:])
    function = "__plpython_procedure_hit"
    assert found == {((f"{function}.<locals>.call", 5), (function, 7), ("<module>", 1)): 97}
    assert {event.ustack.frames[-1].name for event in events[-97:]} == {"_start"}


def test_python_within_uwsgi(spawn, wait_for_line, tmp_path):
    """Workers are forked from a master that has loaded the interpreter as a plugin."""
    (tmp_path / "app.py").write_text(
        "import os\ndef hit():\n    os.getppid()\ndef application(environ, respond):\n"
        "    for _ in range(97):\n        hit()\n    respond('200 OK', [])\n    return [b'%d' % os.getpid()]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = ["--plugin", "python3", "--wsgi-file", tmp_path / "app.py", "--http-socket", f"127.0.0.1:{port}"]
    process = spawn(["uwsgi", *options, "--master", "--processes", "1", "--enable-threads"], stderr=subprocess.PIPE)
    wait_for_line(process, "spawned uWSGI worker 1", stream="stderr")
    [worker] = processes.below(process.pid)
    with trace.Session(pid=worker) as session:
        counts = session.uprobe("c", "getppid").count(stack=ustack)
        session.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            assert int(response.read()) == worker
        found = Counter()
        for (stack,), count in counts.read().items():
            found[tuple((frame.name, frame.line) for frame in stack.python)] += count
            assert stack.frames[-1].kind == "native"
    del found[()]  # the worker itself looks whether its master is there
    assert found == {(("hit", 3), ("application", 6)): 97}
