"""What processes tell of their probes, and who is attached to them, as `doctor PROVIDER` and `list -v` show it."""

import json
import os
import subprocess
import sys

import pytest
from commandline import NOBODY, assert_described, assert_explained, until_hooked, usdtkit
from processes import among_own_mounts, eventually

from usdtkit import trace
from usdtkit.kernel.attach.links import METHODS
from usdtkit.processes import below
from usdtkit.reports import report_of

FIRED, WRONG = 997, 31
# Fires in itself and in a forked child, as often as it is told on each line of standard input.
SERVICE = """
import os, sys
from usdtkit import Provider
from usdtkit.instrument import gc
provider = Provider("reporting")
request = provider.probe("request", number="u8")
other = provider.probe("other")
provider.load()
gc.install()
print("ready", flush=True)

def fire(times, wrong):
    for number in range(times):
        request(number % 256)
    for number in range(wrong):
        request(256 + number)
    print("fired", request.fired, request.dropped, other.fired, flush=True)

for line in sys.stdin:
    fire(*map(int, line.split()))
    if not (child := os.fork()):
        fire(*map(int, sys.stdin.readline().split()))
        sys.stdin.readline()
        os._exit(0)
    print("child", child, flush=True)
    os.waitpid(child, 0)
    sys.exit()
"""


@pytest.fixture
def service(run_python, wait_for_line):
    """service(**popen) -> a running SERVICE."""

    def start(**popen):
        process = run_python(SERVICE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **popen)
        wait_for_line(process, "ready")
        return process

    return start


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def diagnosed(*arguments, **options):
    done = usdtkit("doctor", *map(str, arguments), "--json", **options)
    assert done.returncode == 0, done.stderr
    header, *rows = map(json.loads, done.stdout.splitlines())
    assert header["schema"] == "usdtkit.doctor_provider/1"
    assert_described("usdtkit.doctor_provider/1", rows)
    return {row["pid"]: {probe["name"]: probe for probe in row["probes"]} for row in rows}, done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_a_file_in_a_mount_of_its_own(method):
    """There the kernel shows no path of what is traced."""
    source = """
import os, sys
from usdtkit import Provider, trace
from usdtkit.kernel.tracers import tracers
probe = Provider("mounted").probe("hit")
assert not probe.enabled
with trace.Session(method=sys.argv[1]) as session:
    session.usdt("mounted:hit", probe.path).count()
    session.start()
    (found,) = [each for each in tracers() if each.traces(probe.path, 4096, os.getpid())]
    print(found.path, found.holders == (os.getpid(),))
"""
    script = 'mount -t tmpfs none /mnt; USDTKIT_DIR=/mnt/probes exec "$@"'
    command = [*among_own_mounts(script), "sh", sys.executable, "-c", source, method]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "/ True\n"), done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_counts_of_a_process_and_of_its_child(service, wait_for_line, method):
    process = service()
    path = next(told.path for told in report_of(process.pid).probes if told.provider == "reporting")
    with trace.Session(method=method) as session:
        counts = session.usdt("reporting:request", path).count("pid")
        session.start()
        tell(process, f"{FIRED} {WRONG}")
        assert wait_for_line(process, "fired") == f"fired {FIRED} {WRONG} 0"
        child = int(wait_for_line(process, "child").split()[1])
        probes, told = diagnosed("reporting", "-p", process.pid, "-p", child)
        assert (probes.keys(), told) == ({process.pid, child}, "")
        for pid, fired, dropped in ((process.pid, FIRED, WRONG), (child, 0, 0)):
            request, other = probes[pid]["request"], probes[pid]["other"]
            assert (request["fired"], request["dropped"], request["armed"]) == (fired, dropped, True)
            assert (other["fired"], other["dropped"], other["armed"], other["tracers"]) == (0, 0, False, [])
            assert {holder for tracer in request["tracers"] for holder in tracer["processes"]} == {os.getpid()}
        tell(process, "89 7")
        assert wait_for_line(process, "fired") == "fired 89 7 0"
        assert [told[2:5] for told in report_of(child).probes if told.spec == "reporting:request"] == [(89, 7, True)]
        assert counts.read() == {(process.pid,): FIRED, (child,): 89}
        assert session.summary().rejected == WRONG + 7
    request = diagnosed("reporting", "-p", process.pid)[0][process.pid]["request"]
    assert (request["fired"], request["dropped"], request["armed"], request["tracers"]) == (FIRED, WRONG, False, [])
    tell(process, "")
    assert process.wait(20) == 0


def test_what_people_see(service, wait_for_line):
    process = service()
    lines = usdtkit("doctor", "gc", "-p", process.pid).stdout.splitlines()
    assert lines[0].startswith(f"process {process.pid} (")
    assert lines[2:] == ["    wrapped  gc: callbacks", "    probe    collection: not traced; fired 0"]
    with trace.Session(pid=process.pid) as session:
        session.usdt("gc:collection").count()
        session.start()
        (line,) = usdtkit("doctor", "gc", "-p", process.pid).stdout.splitlines()[3:]
        assert line.startswith("    probe    collection: traced by ") and f" ({os.getpid()}) by BPF link " in line
        lines = usdtkit("list", "-v", "-p", process.pid, "gc:*").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("    in process")]
    assert f" ({os.getpid()}) by BPF link " in line and line.endswith("; fired 0")
    assert lines[-2].endswith(" with gc") and lines[-1] == "    wrapped  gc: callbacks"


def test_hooks_are_told_when_they_are_set(service):
    process = service()

    def hooked():
        return {told.spec: told.hooked for told in report_of(process.pid).probes}

    assert hooked() == {"reporting:request": None, "reporting:other": None, "gc:collection": False}
    with trace.Session(pid=process.pid) as session:
        session.usdt("gc:collection").count()
        session.usdt("reporting:request").count()
        session.start()
        until_hooked(process.pid)
        assert hooked() == {"reporting:request": None, "reporting:other": None, "gc:collection": True}
        (line,) = usdtkit("doctor", "gc", "-p", process.pid).stdout.splitlines()[3:]
        assert "hooks" not in line
    eventually(lambda: hooked()["gc:collection"], answer=False)


def test_another_tracer(service, spawn, wait_for_line):
    process = service()
    path = next(told.path for told in report_of(process.pid).probes if told.provider == "reporting")
    program = f'BEGIN {{ printf("attached\\n"); }} usdt:{path}:reporting:other {{ @ = count(); }}'
    bpftrace = spawn(["bpftrace", "-B", "line", "-e", program], stderr=subprocess.DEVNULL)
    wait_for_line(bpftrace, "attached")
    request = diagnosed("reporting", "-p", process.pid)[0][process.pid]
    bpftrace.kill()  # an old one may miss SIGTERM
    assert [tracer["processes"] for tracer in request["other"]["tracers"]] == [[bpftrace.pid]]
    assert request["request"]["tracers"] == []


def test_a_user_without_privileges_sees_the_own_processes(service, tmp_path):
    tmp_path.chmod(0o777)
    environment = {"USDTKIT_DIR": str(tmp_path / "own"), "HOME": str(tmp_path)}
    own, foreign = service(prefix=NOBODY, env=environment), service()
    probes, told = diagnosed("reporting", "-p", own.pid, prefix=NOBODY)
    assert told == "who traces is shown to root only (CAP_SYS_ADMIN)\n"
    request = probes[own.pid]["request"]
    assert (request["fired"], request["dropped"], request["armed"], request["tracers"]) == (0, 0, False, None)
    done = usdtkit("doctor", "reporting", "-p", str(foreign.pid), prefix=NOBODY)
    assert done.returncode == 3 and str(foreign.pid) in done.stderr


def test_a_container(spawn, wait_for_line, run_python):
    own_mounts = among_own_mounts('mount -t proc proc /proc; exec "$@"')
    prefix = [own_mounts[0], "--pid", "--fork", "--kill-child", *own_mounts[1:], "sh"]
    process = run_python(SERVICE, prefix=prefix, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for_line(process, "ready")
    (pid,) = below(process.pid)
    with trace.Session(pid=pid) as session:
        session.usdt("reporting:request").count()
        session.start()
        tell(process, f"{FIRED} {WRONG}")
        wait_for_line(process, "fired")
        lines = usdtkit("doctor", "reporting", "-p", pid).stdout.splitlines()
        assert lines[0] in usdtkit("doctor", "reporting").stdout.splitlines()
    process.kill()  # unshare takes no other notice
    assert lines[0].startswith(f"process {pid} (") and lines[0].endswith(", 1 in its container)")
    assert lines[-2].endswith(f"; fired {FIRED}, not fired {WRONG}") and f" ({os.getpid()}) " in lines[-2]


def test_the_probes_of_the_language(run_python, wait_for_line):
    source = (
        "import sys, time\nfrom usdtkit.instrument import python\npython.install()\nprint('ready', flush=True)\n"
        "while 'thread__start' not in python.traced(): time.sleep(0.01)\n"
        "import threading\n"
        "for _ in range(97):\n thread = threading.Thread(target=int); thread.start(); thread.join()\n"
        "print('done', flush=True); sys.stdin.readline()"
    )
    process = run_python(source, stdin=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        counts = session.usdt("python:thread__start").count()
        session.start()
        wait_for_line(process, "done")
        told = {told.name: told for told in report_of(process.pid).probes}
        assert (told["thread__start"].hooked, told["thread__stop"].hooked) == (True, False)
        fired = {name: each.fired for name, each in told.items()}
        assert counts.read() == {(): fired["thread__start"]} == {(): 97}
        assert fired["thread__stop"] == 0


def test_a_process_that_lies(run_python, wait_for_line):
    """Another user's process may have any bytes where its report should be."""
    source = (
        "import mmap, os, struct, sys\n"
        "texts = b'\\x1b[31mevil\\0pro\\nbe\\0' + b'x' * 40\n"
        "area = struct.pack('<8sIIQ', b'usdtkit\\0', 2, 1 << 16, 0)\n"
        "area += struct.pack('<IIQQQQQ', 48 + 56, 1, 1 << 63, 144, 2**64 - 1, 5, 9) + texts.ljust(56, b'\\0')[:56]\n"
        "area += struct.pack('<IIQQQQQ', 72, 2, *[0] * 5) + b'e\\x07vil\\0lib\\0why\\0\\0\\xff'.ljust(24, b'\\0')\n"
        "area += struct.pack('<II', 2**32 - 8, 1)\n"
        "maps = []\n"
        "for content in [area, b'', os.urandom(1 << 16), area[:30], b'\\xff' * 4096] * 9:\n"
        "    file = os.memfd_create('usdtkit-report'); os.write(file, content); os.ftruncate(file, 1 << 16)\n"
        "    maps.append(mmap.mmap(file, 1 << 16)); os.close(file)\n"
        "print('ready', flush=True); sys.stdin.readline()"
    )
    process = run_python(source, stdin=subprocess.PIPE)
    wait_for_line(process, "ready")
    report = report_of(process.pid)
    assert 0 < len(report.probes) <= 16
    assert {(told.provider, told.armed, told.path) for told in report.probes} == {("\x1b[31mevil", False, "")}
    (engagement,) = report.engagements
    assert engagement.integration == "e\x07vil"
    done = usdtkit("doctor", "e\x07vil", "-p", process.pid)
    assert done.returncode == 0 and "\x07" not in done.stdout


def test_no_such_provider(service):
    process = service()
    assert_explained(usdtkit("doctor", "reportin", "-p", process.pid), 4, "no probes of reportin", "near: reporting")
    assert_explained(usdtkit("doctor", "reporting", "-p", sys.executable + "x"), 4, "no process")
