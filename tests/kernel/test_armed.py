"""Where a process that runs what is traced has no breakpoints, the reason is told; where it has them, nothing is."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commandline import go, json_lines, start_tracing, stop_tracing, usdtkit
from processes import among_own_mounts, read_until

from usdtkit import trace

PROBE = "pages:hot"

BIG_NODE = Path(shutil.which("node") or os.devnull).resolve().stat().st_size > 1 << 20


@pytest.fixture
def remapped(compile_c, ready):
    """remapped(*how) -> a process that has done to its code what remapped.c describes; `remapped.path`."""
    path = compile_c("remapped.c", "-O2")

    def start(*how):
        return ready([path, *how])

    start.path = str(path)
    return start


@pytest.mark.parametrize(
    ("how", "reason"),
    [("copied", "it runs a copy of its code in memory"), ("writable", "its mapping of the file is writable or shared")],
)
def test_the_reason_is_told(how, reason, remapped):
    pid = remapped(how).pid
    told = f"not armed in {pid}: {reason}"
    done = usdtkit("trace", PROBE, "-p", pid, "-d", "0.2")
    first, *_, last = done.stderr.splitlines()
    assert done.returncode == 0
    assert first.startswith(f"usdtkit: {told}")
    assert last.startswith(f"received 0, lost 0: {told}")
    _, events, summary = json_lines(usdtkit("trace", PROBE, "-p", pid, "-d", "0.2", "--json").stdout)
    assert (events, summary["unarmed"]) == ([], 1)


def test_one_of_several_is_told_and_the_other_traced(remapped, spawn):
    copied, plain = remapped("copied"), remapped()
    tracer = start_tracing(spawn, "trace", "--json", f"u:{remapped.path}:{PROBE}")
    told = read_until(tracer, "not armed", stream="stderr")
    assert told.startswith(f"usdtkit: not armed in {copied.pid}: it runs a copy of its code in memory")
    assert told.endswith("a process that starts now would copy our breakpoints too, and be killed by them")
    for program in (copied, plain):
        go(program)
        read_until(program, "done")
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert [event["pid"] for event in events] == [plain.pid] * 997
    assert (summary["received"], summary["lost"], summary["unarmed"]) == (997, 0, 1)


def test_nothing_is_told_of_what_is_armed(remapped, spawn):
    program = remapped()
    with trace.Session() as session:
        hits = session.usdt(PROBE, remapped.path).count()
        session.start()
        go(program)
        read_until(program, "done")
        assert hits.read() == {(): 997}
        session.detach()
        assert (session.presence.unarmed, session.summary().unarmed) == ([], 0)
        assert session.presence.reasons() == []


if BIG_NODE:  # Debian's has its functions in a library, which it does not copy

    def test_a_real_program_on_huge_pages(spawn):
        script = "console.log('ready'); setTimeout(() => {}, 60000)"
        program = spawn(["node", "--use-largepages=on", "-e", script])
        read_until(program, "ready")
        done = usdtkit("funccount", "node:uv_*", "-p", program.pid, "-d", "0.2")
        assert f"usdtkit: not armed in {program.pid}: it runs a copy of its code in memory" in done.stderr

    def test_a_command_that_would_copy_its_breakpoints_is_refused():
        done = usdtkit("funccount", "node:uv_run", "-c", "node --use-largepages=on -e 0")
        assert done.returncode == 5
        assert "--use-largepages=on" in done.stderr
        done = usdtkit("funccount", "node:uv_run", "-c", "node -e 0")
        assert done.returncode == 0
        assert re.fullmatch(r"[\d,]+ hits?, lost 0, from 1 file in 1 process", done.stderr.splitlines()[-1])


def test_a_command_that_copied_its_breakpoints(compile_c):
    path = compile_c("remapped.c", "-O2")
    done = usdtkit("trace", f"u:{path}:{PROBE}", "-c", f"{path} copied")
    assert "usdtkit: the command was ended by SIGTRAP, as happens to programs that copy their code" in done.stderr


def test_a_file_that_was_replaced(compile_c, tmp_path, ready):
    path = tmp_path / "served"
    shutil.copy(compile_c("stepper.c", "-O2"), path)
    program = ready([path])
    new = tmp_path / "new"
    shutil.copy(path, new)
    new.rename(path)
    done = usdtkit("trace", f"u:{path}:step:plain", "-d", "0.2")
    told = f"not armed in {program.pid}: it runs an older version of this file"
    assert f"received 0, lost 0: {told}" in done.stderr


OVERLAY = """
mkdir lower upper work merged
cp "$1" lower/program
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
exec "$0" -c '
import os, subprocess, sys
program = subprocess.Popen(["merged/program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
program.stdout.readline()
print(program.pid)
tracing = [sys.executable, "-m", "usdtkit", "trace", "--json", "step:plain", "-p", str(program.pid), "-d", "0.3"]
for changed in (False, True):
    if changed:
        os.utime("merged/program")
    tracer = subprocess.Popen(tracing, stderr=subprocess.PIPE, text=True)
    for line in tracer.stderr:
        sys.stderr.write(line)
        if "Tracing" in line:
            break
    program.stdin.write("997\\n")
    program.stdin.flush()
    program.stdout.readline()
    tracer.stderr.read()
    tracer.wait()
    print("--")
program.stdin.close()
program.wait()
'
"""


def test_a_file_that_an_overlay_has_copied(compile_c, tmp_path):
    done = subprocess.run(
        [*among_own_mounts(OVERLAY), sys.executable, str(compile_c("stepper.c", "-O2"))],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    _, rest = done.stdout.split("\n", 1)
    before, after = (part.strip() for part in rest.split("--\n")[:2])
    assert json_lines(before)[2]["received"] == 997
    assert json_lines(before)[2]["unarmed"] == 0
    # The file below, which the process still runs, is attached to as well.
    assert json_lines(after)[2]["received"] == 997
    assert json_lines(after)[2]["unarmed"] == 0
    assert "not armed" not in done.stderr


def test_nobody_runs_it(compile_c, spawn):
    path = compile_c("stepper.c", "-O1")
    told = f"no running process maps {path}; it is attached for those that start later"
    tracer = start_tracing(spawn, "trace", f"u:{path}:step:plain")
    assert read_until(tracer, "no running process", stream="stderr").startswith(f"usdtkit: {told}")
    assert stop_tracing(tracer)[1].startswith(f"received 0, lost 0: {told}")


def test_one_of_the_given_processes_does_not_run_it(compile_c, ready):
    path = compile_c("stepper.c", "-O2")
    program, other = ready([path]), ready([compile_c("work.c", "-O1")])
    with trace.Session(pid=[program.pid, other.pid]) as session:
        session.usdt("step:plain", path).count()
        session.start()
        (unarmed,) = session.presence.unarmed
        assert (unarmed.pids, unarmed.path) == ((other.pid,), str(path))
        assert "it has not mapped the traced file" in unarmed.line


def test_who_only_reads_the_file_is_not_accused(compile_c, run_python, wait_for_line):
    path = compile_c("stepper.c", "-O2")
    reader = run_python(
        "import mmap, sys; file = open(sys.argv[1], 'rb'); "
        "view = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ); print('ready', flush=True); input()",
        str(path),
    )
    wait_for_line(reader, "ready")
    with trace.Session() as session:
        session.usdt("step:plain", path).count()
        session.start()
        session.detach()
        assert session.presence.unarmed == []
        assert session.presence.reasons()[0].startswith(f"no running process maps {path}")


def test_processes_that_come_and_go(stepper):
    """A look at processes that are just starting and ending accuses nobody."""
    program = stepper()
    with trace.Session() as session:
        session.uprobe("c", "getservbyport").count()
        session.usdt("step:plain", program.path).count()
        session.start()
        until = time.monotonic() + 2  # the compiler may have needed as long
        looks = 0
        while time.monotonic() < until:
            running = [subprocess.Popen(["true"]) for _ in range(5)]
            session.presence._armed.look_again()
            looks += 1
            assert session.presence.unarmed == []
            assert [process.wait() for process in running] == [0] * 5
        assert looks > 1


@pytest.mark.parametrize(
    ("words", "which"),
    [
        ([], "which are traced from some milliseconds after their start"),
        (["--drop"], "but only the process of the command is traced"),
    ],
)
def test_what_children_of_a_command_do_at_once_is_missed_and_that_is_said(words, which, compile_c):
    path = compile_c("mysql_usdt.c")
    done = usdtkit("trace", f"u:{path}:mysql:query__start", *words, "-c", f"sh -c '{path} 0; :'")
    assert done.stderr.splitlines()[-1] == f"received 0, lost 0: the command has started other processes, {which}"


def test_without_the_privilege_to_look(remapped):
    program = remapped()
    capabilities = "+bpf,+perfmon,+dac_read_search"
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    prefix += [f"--{kind}=-all,{capabilities}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    done = usdtkit("trace", f"u:{remapped.path}:{PROBE}", "-d", "0.2", prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert "not armed" not in done.stderr
    assert program.poll() is None
