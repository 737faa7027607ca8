"""The provider `python`, on every CPython that is here: known counts, no hook while nobody traces, peers unchanged."""

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from commandline import json_lines, start_tracing, stop_tracing, usdtkit
from programs import language, pools
from pythons import environment, tree_for, versions

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.trace import arg
from usdtkit.trace.perfmap import PerfMap

pytestmark = pytest.mark.machine

PROGRAM = Path(language.__file__)
PLACES = ("function__entry", "function__return")
HANDLED = (3, 12)
# From then on builds with probes of their own fire them also where a generator or a coroutine is made.
ENTERED_AT_CREATION = (3, 15)


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    return lambda version: tree_for(version, folder)


@pytest.fixture(params=versions())
def python(request, trees):
    """(path of an interpreter, environment in which it finds usdtkit)"""
    path, tree = trees(request.param)
    return path, environment(tree)


@pytest.fixture
def start(spawn, wait_for_line):
    """start(python, *arguments) -> a process that has said "ready"."""

    def begin(python, *arguments, **more):
        path, variables = python
        process = spawn([path, *arguments], env=variables | more, cwd="/")
        wait_for_line(process, "ready")
        return process

    return begin


def say(process, line=""):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def counts(process, wait_for_line, probes):
    """{probe: {key: count}} of all that the program's scenario does, the key being a probe's names."""
    with trace.Session(pid=process.pid, string_size=24) as session:
        tables = {probe: session.usdt(f"python:{probe}").count(*keys) for probe, keys in probes.items()}
        session.start()
        say(process, ",".join(probes))
        wait_for_line(process, "done", timeout=120)
        found = {probe: table.read() for probe, table in tables.items()}
        summary = session.summary()
    say(process)
    assert process.wait(20) == 0
    assert summary.lost == 0
    return found


def test_calls_equal_entries_and_returns(python, start, wait_for_line):
    found = counts(start(python, PROGRAM, "install"), wait_for_line, {place: ["function"] for place in PLACES})
    expected = {
        "leaf": language.CALLS + language.THREADS,
        "recurse": language.DEPTH,
        "each": 6,
        "waits": 3,
        "fails": 3 * language.FAILURES,
        "catches": language.FAILURES,
        "worker": language.THREADS,
        "scenario": 1,
    }
    returns, entries = ({name: found[place].get((name,), 0) for name in expected} for place in PLACES[::-1])
    assert returns == expected
    if version_of(python) >= ENTERED_AT_CREATION and has_own(python, "function__entry"):
        expected |= {"each": 7, "waits": 4}
    assert entries == expected


def test_all_else_that_the_language_does(python, start, wait_for_line):
    process = start(python, PROGRAM, "install")
    kinds = {
        "generator__resume": ["function"],
        "generator__yield": ["function"],
        "coroutine__resume": ["function"],
        "coroutine__yield": ["function"],
        "exception__raise": ["type", "function"],
        "exception__unwind": ["type", "function"],
        "cfunction__call": ["function", "owner"],
        "cfunction__return": ["function", "owner"],
        "thread__start": ["name"],
        "thread__stop": ["name"],
        "gc__start": ["generation"],
        "import__find__load__start": ["module"],
        "import__find__load__done": ["module", "found"],
        "audit": ["event"],
        "line": ["function"],
    }
    if version_of(python) >= HANDLED:
        kinds["exception__handled"] = ["type", "function"]
    found = counts(process, wait_for_line, kinds)
    for kind in ("generator__resume", "generator__yield"):
        assert found[kind][("each",)] == 5
    for kind in ("coroutine__resume", "coroutine__yield"):
        assert found[kind][("waits",)] == 2
    assert found["exception__raise"][("OSError", "fails")] == language.FAILURES
    assert found["exception__unwind"][("OSError", "fails")] == 3 * language.FAILURES
    for kind in ("cfunction__call", "cfunction__return"):
        assert found[kind][("abs", "builtins")] == language.ABSOLUTES
    for kind in ("thread__start", "thread__stop"):
        assert found[kind] == {(f"worker {number}",): 1 for number in range(language.THREADS)}
    assert sum(found["gc__start"].values()) == found["gc__start"][(2,)] == language.COLLECTIONS
    assert found["import__find__load__start"][("colorsys",)] == 1
    assert found["import__find__load__done"][("colorsys", 1)] == 1
    assert found["import__find__load__done"][("this_is_not_there", 0)] == 1
    assert found["audit"][("language.event",)] == language.EVENTS
    assert found["line"][("leaf",)] == language.CALLS + language.THREADS
    if "exception__handled" in found:
        assert found["exception__handled"][("OSError", "catches")] == language.FAILURES


def version_of(python):
    asked = [python[0], "-c", "import sys; print(*sys.version_info[:2])"]
    return tuple(map(int, subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()))


def has_own(python, probe):
    with Image.open(python[0]) as image:
        return probe in {each.name for each in read_probes(image)}


# Says at each change what the hooks are set for, and when.
CHANGES = """
import sys, time
from usdtkit.instrument import python
python.install()
print("ready", python.Provider("python").files[0], flush=True)
before = frozenset()
while True:
    now = python.traced()
    if now != before:
        print(time.monotonic(), ",".join(sorted(now)), flush=True)
        before = now
        if sys.version_info >= (3, 12):
            assert bool(now) == any(map(sys.monitoring.get_tool, range(6)))
    time.sleep(0.001)
"""


def test_hooks_come_and_go_with_the_tracer(python, start, wait_for_line):
    path, variables = python
    process = start((path, variables), "-c", CHANGES)
    on, off = [], []
    for _ in range(5):
        with trace.Session(pid=process.pid) as session:
            session.usdt("python:generator__yield").count()
            before = time.monotonic()
            session.start()
            on.append(float(wait_for_line(process, "generator__yield").split()[0]) - before)
            before = time.monotonic()
        when, names = wait_for_line(process, "").split(" ")
        assert names == ""
        off.append(float(when) - before)
    # The best of several: a busy machine is slow, but a watcher that looks too seldom is slow each time.
    assert min(on) < 0.2, on
    assert min(off) < 0.2, off


LINES = """
import sys
from usdtkit.instrument import python
python.install()
sys.path.insert(0, sys.argv[1])
import language
print("ready", flush=True)
language.await_tracer()
def one(): return 1
def first(): number = 1; return number
def each(): yield 1; yield 2
nameless = lambda: 2
class Class:
    def method(self): pass
def several():
    number = one()
    return number
for _ in range(997):
    first(), list(each()), nameless(), Class().method(), several()
print("done", flush=True)
"""


def test_lines_of_functions_of_one_line(python, start, wait_for_line):
    process = start(python, "-c", LINES, PROGRAM.parent)
    with trace.Session(pid=process.pid, string_size=24) as session:
        lines = session.usdt("python:line").count("function")
        session.start()
        say(process, "line")
        wait_for_line(process, "done")
        found = lines.read()
    once = {name: found.get((name,)) for name in ("one", "first", "<lambda>", "method")}
    # CPython 3.11 reports such a line to no probe that it was built with.
    assert once == dict.fromkeys(once, None if has_own(python, "line") else 997)
    assert found[("several",)] == 2 * 997
    assert (
        has_own(python, "line") or found[("each",)] >= 997
    )  # the line is reported again after a yield by some versions


FORKS = """
import os, sys, warnings
warnings.simplefilter("error")
from usdtkit.instrument import python
python.install()
sys.path.insert(0, sys.argv[1])
import language
child = os.fork() or os.fork()
if child:
    os.waitpid(child, 0)
    os._exit(0)
print("ready", os.getpid(), flush=True)
language.await_tracer()
for number in range(997):
    language.leaf()
print("done", flush=True)
"""


def test_a_forked_worker(python, spawn, wait_for_line):
    """A fork warns of no thread, and its child, forked before any tracer came, sees this one come."""
    path, variables = python
    process = spawn([path, "-c", FORKS, PROGRAM.parent], env=variables, cwd="/", stderr=subprocess.STDOUT)
    worker = int(wait_for_line(process, "ready").split()[1])
    with trace.Session(pid=worker) as session:
        calls = session.usdt("python:function__entry").count("function")
        session.start()
        say(process, "function__entry")
        wait_for_line(process, "done")
        assert calls.read()[("leaf",)] == 997


@pytest.fixture
def fires(start, wait_for_line, trees):
    """fires(version, script, probe) -> {(file, function): hits} of what the script does after await_tracer()."""

    def run(version, script, probe="function__entry"):
        path, tree = trees(version)
        whole = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})\nimport language\n{script}"
        process = start((path, environment(tree)), "-c", whole)
        with trace.Session(pid=process.pid) as session:
            session.usdt(f"python:{probe}").emit("file", "function")
            session.start()
            say(process, probe)
            wait_for_line(process, "done", timeout=60)
            return Counter((Path(event.file).name, event.function) for event in session.drain())

    return run


FILTERED = """
from usdtkit.instrument import python
python.install(only=["*language.py", "*/tokenize.py"], skip=["*/token[i]ze.py"])
import os, tokenize
print("ready", flush=True)
language.await_tracer()
for _ in range(97):
    list(language.each())
    list(os.walk("/proc/self/fdinfo"))
    list(tokenize.generate_tokens(iter(["a\\n"]).__next__))
print("done", flush=True)
"""


@pytest.mark.parametrize("version", versions())
def test_only_the_files_that_are_asked_for(version, fires):
    assert fires(version, FILTERED, "generator__resume") == {("language.py", "each"): 5 * 97}


TAKEN = """
from usdtkit.instrument import python
for number in (0, 1, 2, 3, 4):
    sys.monitoring.use_tool_id(number, "another")
python.install()
print("ready", flush=True)
language.await_tracer()
assert sys.monitoring.get_tool(5) == "usdtkit"
for _ in range(97):
    list(language.each())
print("done", flush=True)
"""


@pytest.mark.parametrize("version", versions((3, 12)))
def test_another_tool_has_our_id(version, fires):
    assert fires(version, TAKEN, "generator__resume")["language.py", "each"] == 5 * 97


PROFILED = """
import cProfile
from usdtkit.instrument import python
python.install()
print("ready", flush=True)
language.await_tracer()
profile = cProfile.Profile()
profile.enable()
for _ in range(97):
    language.leaf()
    list(language.each())
profile.disable()
[entry] = [entry for entry in profile.getstats() if getattr(entry.code, "co_name", "") == "leaf"]
assert entry.callcount == 97
print("done", flush=True)
"""


@pytest.mark.parametrize("version", versions((3, 12)))
def test_a_profiler_and_a_tracer_at_once(version, fires):
    assert fires(version, PROFILED, "generator__resume")["language.py", "each"] == 5 * 97


OBJECTS = """
class Order:
    pass
print("ready", flush=True)
language.await_tracer()
orders = [Order() for _ in range(997)]
print("done of", Order.__basicsize__, flush=True)
sys.stdin.readline()
del orders[97:]
print("gone", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def makes_objects(trees, start):
    """makes_objects(version, *options) -> a process under `usdtkit run` that makes 997 objects when it is traced."""

    def begin(version, *options):
        path, tree = trees(version)
        script = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})\nimport language\n{OBJECTS}"
        return start((path, environment(tree)), "-m", "usdtkit.run", *options, "-c", script)

    return begin


@pytest.mark.parametrize("version", versions((3, 13)))
def test_objects_by_type(version, makes_objects, wait_for_line):
    process = makes_objects(version, "--objects")
    with trace.Session(pid=process.pid) as session:
        made, gone = (session.usdt(f"python:object__{what}").count("type") for what in ("new", "delete"))
        session.start()
        say(process, "object__new,object__delete")
        wait_for_line(process, "done", timeout=60)
        assert made.read()[("Order",)] == 997
        say(process)
        wait_for_line(process, "gone", timeout=60)
        assert gone.read()[("Order",)] == 900


@pytest.mark.parametrize("version", versions((3, 13)))
def test_uobjnew(version, makes_objects, spawn, wait_for_line):
    process = makes_objects(version, "--objects")
    tracer = start_tracing(spawn, "uobjnew", str(process.pid), "--json")
    say(process, "object__new")
    size = int(wait_for_line(process, "done", timeout=60).split()[2])
    _, rows, summary = json_lines(stop_tracing(tracer)[0])
    [orders] = [row for row in rows if row["type"] == "Order"]
    assert (orders["allocations"], orders["bytes"], summary["lost"]) == (997, 997 * size, 0)


def test_where_there_are_no_objects_to_see(makes_objects):
    version = versions()[0]  # the one that runs the tests, Debian's 3.11
    done = usdtkit("uobjnew", makes_objects(version).pid)
    assert (done.returncode, done.stdout) == (4, "")
    assert "has no python:object__new" in done.stderr
    assert "usdtkit run --objects PROGRAM.py …, with CPython 3.13 or later" in done.stderr
    if tuple(map(int, version.split(".")))[:2] < (3, 13):
        done = usdtkit("run", "--objects", "-c", "print('is not run')")
        assert (done.returncode, done.stdout) == (5, "")
        assert "does not report objects" in done.stderr


def test_a_program_that_is_not_edited(trees, spawn, wait_for_line, tmp_path):
    """By the environment alone: the program, and a worker of another interpreter process that it starts."""
    path, tree = trees(versions()[0])
    site = f"{tree}/usdtkit/instrument/site"
    (tmp_path / "sitecustomize.py").write_text("print('hidden sitecustomize')\n")
    variables = environment(f"{site}:{tmp_path}", USDTKIT_INSTRUMENT="python")
    script = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    process = spawn([path, "-c", script, PROGRAM], env=variables, cwd="/")
    wait_for_line(process, "hidden sitecustomize")
    wait_for_line(process, "hidden sitecustomize")
    wait_for_line(process, "ready")
    with trace.Session() as session:
        calls = session.usdt("python:function__entry").count("pid", "function")
        session.start()
        say(process, "function__entry")
        wait_for_line(process, "done", timeout=60)
        by_pid = {pid: count for (pid, function), count in calls.read().items() if function == "leaf"}
    say(process)
    assert process.wait(20) == 0
    assert list(by_pid.values()) == [language.CALLS + language.THREADS]
    assert process.pid not in by_pid


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("version", [versions()[0], *versions((3, 12))[-1:]])
def test_pools_of_processes(version, method, trees, spawn, wait_for_line):
    path, tree = trees(version)
    command = [path, "-m", "usdtkit.run", "-W", "error", pools.__file__, method]
    process = spawn(command, env=environment(tree), cwd="/", stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session() as session:
        calls = session.usdt("python:function__entry").where(arg("function") == "leaf").count("pid", "file")
        session.start()
        say(process)
        wait_for_line(process, "done 0 0", timeout=60)
        counts = {pid: count for (pid, file), count in calls.read().items() if file == pools.__file__}
        assert session.summary().lost == 0
    assert sum(counts.values()) == (2 * pools.TASKS + pools.WORKERS) * pools.CALLS
    assert process.pid not in counts
    assert process.wait(20) == 0
    assert process.communicate(timeout=20) == ("", "")  # which ends when all who could write there have ended


def test_the_names_that_perf_trampolines_have(trees, start, wait_for_line):
    """With -X perf every function has code of its own, and the map that names it is read."""
    for version in versions((3, 12)):
        path, tree = trees(version)
        process = start((path, environment(tree)), "-X", "perf", PROGRAM, "install")
        say(process)
        wait_for_line(process, "done", timeout=60)
        lines = Path(f"/tmp/perf-{process.pid}.map").read_text().splitlines()
        [(begin, size)] = [line.split()[:2] for line in lines if line.split()[2].startswith("py::leaf:")]
        name, offset = PerfMap.of(process.pid).find(int(begin, 16) + int(size, 16) // 2)
        assert (name, offset > 0) == (f"py::leaf:{PROGRAM}", True)
        Path(f"/tmp/perf-{process.pid}.map").unlink()
