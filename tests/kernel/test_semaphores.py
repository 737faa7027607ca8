"""Semaphores on a page that is mapped twice, as lld and mold lay them out: raised where the program looks, and nothing
left behind."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from commandline import go, json_lines, read_until, start_tracing, stop_tracing, usdtkit
from processes import eventually

from usdtkit import targets, trace
from usdtkit.elf.image import Image
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import FileSites, UprobeSite
from usdtkit.mappings import identities
from usdtkit.maps import mappings_in, maps_of
from usdtkit.trace.semaphores import misleading_files

MISLEADING = ["lld", "mold"]
LINKERS = ["bfd", *MISLEADING]
KINDS = [[], ["-no-pie"], ["-static"], ["-static-pie"]]


AS_NOBODY = """
import sys
from usdtkit import trace
with trace.Session(command=sys.argv[2:], drop_privileges=True) as session:
    session.usdt("tick:hit", sys.argv[1]).emit()
    print(len(list(session)))
"""


@pytest.fixture
def linked(compile_c):
    """linked(source, linker, *flags) -> the path of a program or library, as text."""
    return lambda source, linker, *flags: str(compile_c(source, "-O2", f"-fuse-ld={linker}", *flags))


@pytest.fixture
def loading(linked):
    """loading(linker) -> a library with tick:hit, and the words of a command that loads it."""

    def build(linker, *arguments):
        library = linked("tick_library.c", linker, "-shared", "-fPIC")
        return library, [linked("loads.c", "bfd"), library, *arguments]

    return build


def site_of(path, name):
    """The only site of a probe."""
    (site,) = [site for probe in targets.probes_in(path) if probe.spec == name for site in probe.sites]
    return site


def left_in(pid, path, name):
    """What a process has of a probe: how many breakpoints, and the counter that the program looks at."""
    site = site_of(path, name)
    with Image.open(path) as image:
        (identity,) = identities([image.file.descriptor])
    mappings = mappings_in(maps_of(pid), identity)
    codes = [at for one in mappings if (at := one.address(site.file_offset)) is not None]
    # Of those mappings that can be written now, which the page of constants cannot any more.
    (counter,) = [at for one in mappings if one.is_writable and (at := one.address(site.semaphore_offset)) is not None]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:

        def read(address, size):
            memory.seek(address)
            return int.from_bytes(memory.read(size), "little")

        return sum(read(code, 1) == 0xCC for code in codes), read(counter, 2)


@pytest.mark.parametrize("linker", LINKERS)
def test_which_files_need_help(linker, linked):
    path = linked("stepper.c", linker)
    site = site_of(path, "step:guarded")
    file = OpenFile.open(path)
    attached = {file: FileSites({"hook": [UprobeSite(site.file_offset, site.semaphore_offset, 0)]})}
    assert bool(misleading_files(attached)) == (linker in MISLEADING)
    # What has no semaphore does not.
    assert misleading_files({file: FileSites({"hook": [UprobeSite(site.file_offset, 0, 0)]})}) == []


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("kind", KINDS, ids="".join)
def test_a_command(linker, kind, linked):
    path = linked("stepper.c", linker, *kind)
    done = usdtkit("trace", "--json", f"u:{path}:step:guarded", "-c", path, stdin=None, input="997\n")
    _, events, summary = json_lines(done.stdout)
    assert len(events) == summary["received"] == 997
    assert "fired 997 guarded 997" in done.stderr


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("method", ["uprobe_multi", "perf_link", "perf_ioctl"])
def test_a_command_that_loads_a_library(linker, method, loading, capfd):
    library, words = loading(linker)
    with trace.Session(command=words, method=method) as session:
        hits = session.usdt("tick:hit", library).count()
        list(session)
        assert hits.read() == {(): 997}
        assert session.command_status == 0
    assert "raised 997 of 997" in capfd.readouterr().out


@pytest.mark.parametrize("linker", MISLEADING)
def test_a_command_that_becomes_another_program(linker, loading, capfd):
    library, words = loading(linker)
    with trace.Session(command=["sh", "-c", 'exec env "$@"', "sh", *words]) as session:
        hits = session.usdt("tick:hit", library).count()
        list(session)
        assert hits.read() == {(): 997}
    assert "raised 997 of 997" in capfd.readouterr().out


@pytest.mark.parametrize("linker", MISLEADING)
def test_a_command_of_another_user(linker, loading, run_python):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # pytest's own directories are closed to other users
        library, program = (shutil.copy(path, directory) for path in loading(linker)[1][1::-1])
        tracer = run_python(AS_NOBODY, library, program, library, stdin=subprocess.DEVNULL)
        assert "raised 997 of 997" in read_until(tracer, "raised", timeout=60)
        assert tracer.stdout.read().endswith("\n997\n")
        assert tracer.wait() == 0


@pytest.mark.parametrize("linker", LINKERS)
def test_a_process_that_runs(linker, linked, ready):
    path = linked("stepper.c", linker)
    program = ready([path])
    with trace.Session(pid=program.pid) as session:
        hits = session.usdt("step:guarded", path).count()
        session.start()
        program.stdin.write("997\n")
        program.stdin.flush()
        assert read_until(program, "fired") == "fired 997 guarded 997"
        assert hits.read() == {(): 997}
        session.detach()
        assert left_in(program.pid, path, "step:guarded") == (0, 0)


@pytest.mark.parametrize("linker", LINKERS)
def test_a_process_that_starts_later(linker, linked, ready):
    path = linked("stepper.c", linker)
    with trace.Session() as session:
        hits = session.usdt("step:guarded", path).count()
        session.start()
        programs = [ready([path]) for _ in range(3)]
        for program in programs:
            eventually(lambda pid=program.pid: left_in(pid, path, "step:guarded")[1] > 0, answer=True)
            program.stdin.write("997\n")
            program.stdin.flush()
            assert read_until(program, "fired") == "fired 997 guarded 997"
        assert hits.read() == {(): 3 * 997}
        session.detach()
        assert [left_in(program.pid, path, "step:guarded") for program in programs] == [(0, 0)] * 3


@pytest.mark.parametrize("linker", LINKERS)
def test_a_library_that_is_loaded_later(linker, loading, ready):
    """Every call but those in the moment until the counter is written."""
    library, words = loading(linker, "997", "1000")
    program = ready(words)
    with trace.Session() as session:
        hits = session.usdt("tick:hit", library).count()
        session.start()
        go(program)
        raised = int(read_until(program, "raised").split()[1])
        assert hits.read() == {(): raised}
        assert raised >= 900
        session.detach()
        assert left_in(program.pid, library, "tick:hit") == (0, 0)


TRACER = """
import sys, time
from usdtkit import trace
session = trace.Session()
session.usdt("step:guarded", sys.argv[1]).count()
session.start()
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("linker", LINKERS)
def test_a_tracer_that_is_killed_leaves_nothing(linker, linked, ready, run_python):
    path = linked("stepper.c", linker)
    tracer = run_python(TRACER, path)
    read_until(tracer, "ready", timeout=60)
    program = ready([path])
    eventually(lambda: left_in(program.pid, path, "step:guarded")[1] > 0, answer=True)
    tracer.send_signal(signal.SIGKILL)
    tracer.wait()
    eventually(left_in, program.pid, path, "step:guarded", answer=(0, 0))


KILLED_AT_THE_STOP = """
import os, signal, sys
from usdtkit import trace
from usdtkit.trace import semaphores
semaphores.put_right = lambda pid, file: os.kill(os.getpid(), signal.SIGKILL)
session = trace.Session(command=sys.argv[2:])
session.usdt("tick:hit", sys.argv[1]).count()
list(session)
"""


def test_a_command_goes_on_when_its_tracer_is_killed(loading, run_python):
    library, words = loading("lld")
    tracer = run_python(KILLED_AT_THE_STOP, library, *words, stdin=subprocess.DEVNULL)
    assert "of 997" in read_until(tracer, "raised", timeout=60)
    assert tracer.wait() == -signal.SIGKILL


def test_stops_of_others_are_left_alone(loading):
    """A command that was stopped by somebody else goes on when they say so, and not before."""
    library, words = loading("lld", "997", "1000")
    with trace.Session(command=words, command_stdout=2) as session:
        hits = session.usdt("tick:hit", library).count()
        session.start()
        (pid,) = session.pids
        eventually(lambda: sum(hits.read().values()) > 0, answer=True)
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        eventually(state, pid, answer="T")
        time.sleep(0.1)  # long enough for what must not happen
        assert state(pid) == "T"
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
        list(session)
        assert hits.read() == {(): 997}


def state(pid):
    """The letter of a process's state, as ps shows it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_without_the_privilege_to_write(linked, ready, spawn):
    path = linked("stepper.c", "lld")
    capabilities = "-all,+bpf,+perfmon,+dac_read_search"
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    prefix += [f"--{kind}={capabilities}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    tracer = start_tracing(spawn, "trace", f"u:{path}:step:guarded", prefix=prefix)
    program = ready([path])
    told = f"process {program.pid} and those that start from now on are not traced"
    assert told in read_until(tracer, "are not traced", stream="stderr")
    assert told in stop_tracing(tracer)[1]
