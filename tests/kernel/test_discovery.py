"""What starts while a trace runs: other versions, containers, files of other users, files made at first use."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from commandline import USDTKIT, assert_explained, json_lines, start_tracing, stop_tracing, usdtkit
from conftest import Stepper
from processes import among_own_mounts, as_user, read_until

from usdtkit import trace
from usdtkit.processes import below
from usdtkit.trace import usdt

# Fires a probe so often as its standard input says, as soon as somebody traces it.
FIRES = r"""
import sys
from usdtkit import Provider
provider = Provider("{provider}")
probe = provider.probe("order", {declaration})
provider.load()
print("loaded", flush=True)
for line in sys.stdin:
    while not probe.enabled:
        pass
    for number in range(int(line)):
        probe({values})
    print("fired", flush=True)
"""
OLD = {"declaration": 'number="u64", customer="str"', "values": 'number, "ada"'}
NEW = {"declaration": 'region="str", customer="str", number="u32"', "values": '"north", "bob", number'}


@pytest.fixture
def service(run_python, wait_for_line):
    """service(provider, version, prefix=(), **popen) -> fire(times) of a process that has loaded its provider."""

    def start(provider, version=OLD, prefix=(), **popen):
        process = run_python(FIRES.format(provider=provider, **version), prefix=prefix, **popen)
        wait_for_line(process, "loaded")

        def fire(times):
            process.stdin.write(f"{times}\n")
            process.stdin.flush()

            def wait():
                wait_for_line(process, "fired")

            return wait

        fire.pid, fire.process = process.pid, process
        return fire

    return start


@pytest.fixture
def follow():
    """follow(session) -> found(pid), which waits until something was found in this process."""

    def start(session):
        remarks = []
        session.on_remark = remarks.append
        session.start()

        def found(pid):
            deadline = time.monotonic() + 20
            while not any(f"process {pid} maps" in remark for remark in remarks):
                assert time.monotonic() < deadline, remarks
                time.sleep(0.005)
            return remarks

        return found

    return start


def open_to_all(directory):
    """Let other users reach a directory: pytest's own are closed to them."""
    for parent in directory.parents:
        if parent == Path(tempfile.gettempdir()):
            return
        parent.chmod(0o755)


def until(session, events, count):
    """Iterate until there are so many events."""
    deadline = time.monotonic() + 20
    while len(events) < count and time.monotonic() < deadline:
        session.poll(events.append, timeout=0.1)
    session.poll(events.append, timeout=0.1)


def test_a_redeploy_with_another_declaration(service, follow):
    old = service("redeployed")
    events = []
    with trace.Session(discover=True) as session:
        session.usdt("redeployed:order").emit("number", "customer")
        found = follow(session)
        old(997)()
        new = service("redeployed", NEW)
        new(997)()
        until(session, events, 2 * 997)
        summary = session.summary()
    assert Counter((event.pid, event.customer) for event in events) == {(old.pid, "ada"): 997, (new.pid, "bob"): 997}
    assert [event.number for event in events] == [*range(997)] * 2
    assert (summary.hits, summary.received, summary.lost, summary.unreadable) == (2 * 997, 2 * 997, 0, 0)
    assert (summary.files, summary.processes, summary.unlooked) == (2, 2, 0)
    assert len(found(new.pid)) == 1


def test_a_declaration_without_an_argument_that_is_shown(service, follow):
    service("shortened")
    events = []
    with trace.Session(discover=True) as session:
        session.usdt("shortened:order").emit("number", "customer")
        found = follow(session)
        new = service("shortened", {"declaration": 'number="u64"', "values": "number"})
        new(97)()
        until(session, events, 97)
        assert [remark.rpartition(": ")[2] for remark in found(new.pid)[1:]] == [
            "shortened:order has no such customer, which cannot be read there"
        ]
        summary = session.summary()
    assert [(event.number, event.customer) for event in events] == [(number, None) for number in range(97)]
    assert summary.hits == 97 <= summary.unreadable


CONTAINER = 'mount -t tmpfs none "$0"; exec "$@"'


def test_two_containers_of_which_one_starts_later(service, tmp_path):
    inside = {"prefix": [*among_own_mounts(CONTAINER), str(tmp_path)], "env": {"USDTKIT_DIR": str(tmp_path)}}
    first, events = service("contained", **inside), []
    with trace.Session(discover=True) as session:
        session.usdt("contained:order").emit("number")
        session.start()
        first(997)()
        second = service("contained", **inside)
        second(997)()
        until(session, events, 2 * 997)
        summary = session.summary()
    assert Counter(event.pid for event in events) == {first.pid: 997, second.pid: 997}
    assert (summary.hits, summary.lost, summary.files, summary.processes) == (2 * 997, 0, 2, 2)


def test_another_users_copy(service, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    open_to_all(theirs)
    ours, events = service("shared"), []
    with trace.Session(discover=True) as session:
        session.usdt("shared:order").emit("number")
        session.start()
        user = as_user(65534)
        other = service("shared", prefix=user, env={"USDTKIT_DIR": str(theirs)})
        other(997)()
        ours(499)()
        until(session, events, 997 + 499)
    assert Counter(event.pid for event in events) == {other.pid: 997, ours.pid: 499}


SPANS = """
import sys
from usdtkit import Provider
provider = Provider("spanned")
order = provider.probe("order", number="u64")
provider.load()
print("loaded", flush=True)
sys.stdin.readline()
{makes}
print("made", flush=True)
for line in sys.stdin:
    for number in range(int(line)):
        with provider.span("pay", number=number):
            pass
    print("fired", flush=True)
"""


@pytest.mark.parametrize("by_pid", [False, True])
def test_a_span_that_makes_its_file_at_first_use(by_pid, run_python, wait_for_line, follow):
    process = run_python(SPANS.format(makes='with provider.span("pay", number=0): pass'))
    wait_for_line(process, "loaded")
    events = []
    with trace.Session(pid=process.pid if by_pid else None, discover=True) as session:
        session.usdt("spanned:*").emit("number")
        found = follow(session)
        process.stdin.write("\n")
        process.stdin.flush()
        found(process.pid)
        process.stdin.write("997\n")
        process.stdin.flush()
        wait_for_line(process, "fired")
        until(session, events, 2 * 997)
    assert Counter(event.probe for event in events if event.number is not None)["spanned:pay__start"] == 997
    assert Counter(event.probe for event in events) == {"spanned:pay__start": 997, "spanned:pay__done": 997}


def test_pairs_counts_and_histograms(compile_c, stepper, follow, tmp_path):
    """A program with semaphores and a function, and a copy of it, which is another file."""
    copy = tmp_path / "stepper"
    shutil.copy(compile_c("stepper.c", "-O2"), copy)
    old, events = stepper(), []
    with trace.Session(discover=True) as session:
        mine = (trace.pid == old.pid) | (trace.comm == "stepper")
        session.narrow(mine)
        pair = session.pair(usdt("step:plain"), usdt("step:guarded"))
        pair.emit("latency")
        counts = session.usdt("step:guarded").count("pid")
        values = session.usdt("step:plain").hist(trace.arg(1))
        found = follow(session)
        old.fire(97)
        new = stepper(copy)
        found(new.pid)
        assert new.fire(997) == 997
        until(session, events, 97 + 997)
        summary = session.summary()
        assert counts.read() == {(old.pid,): 97, (new.pid,): 997}
        assert values.read()[()].count == 97 + 997
    assert Counter(event.pid for event in events) == {old.pid: 97, new.pid: 997}
    assert {event.latency_ns > 0 for event in events} == {True}
    assert (summary.lost, summary.files, summary.processes) == (0, 2, 2)


LIBRARY = """
import ctypes, sys
work = ctypes.CDLL(sys.argv[1]).work
print("loaded", flush=True)
for line in sys.stdin:
    for number in range(int(line)):
        work(number)
    print("fired", flush=True)
"""


def test_calls_of_another_copy_of_a_library(compile_c, run_python, wait_for_line, follow, tmp_path):
    built = compile_c(
        '__attribute__((noinline)) int work(int i) { __asm__ volatile(""); return -i; }', "-shared", "-O1"
    )

    def start(name):
        (tmp_path / name).mkdir()
        shutil.copy(built, library := tmp_path / name / "libdiscovered.so.1")
        process = run_python(LIBRARY, str(library))
        wait_for_line(process, "loaded")
        return process

    def call(process, times):
        process.stdin.write(f"{times}\n")
        process.stdin.flush()
        wait_for_line(process, "fired")

    old = start("one")
    with trace.Session(discover=True) as session:
        calls = session.pair(trace.uprobe("discovered", "work"))
        hist = calls.hist("latency", "pid")
        returned = session.uretprobe("discovered", "work").count("pid")
        found = follow(session)
        call(old, 97)
        new = start("two")
        found(new.pid)
        call(new, 997)
        assert {pid: values.count for (pid,), values in hist.read().items()} == {old.pid: 97, new.pid: 997}
        assert returned.read() == {(old.pid,): 97, (new.pid,): 997}
        summary = session.summary()
    assert (summary.unmatched, summary.abandoned, summary.files, summary.processes) == (0, 0, 2, 2)


OVERLAY = """
mkdir -p "$0/lower" "$0/upper$1" "$0/work$1" "$0/merged$1"
[ -e "$0/lower/program" ] || cp "$2" "$0/lower/program"
mount -t overlay overlay -o "lowerdir=$0/lower,upperdir=$0/upper$1,workdir=$0/work$1" "$0/merged$1"
exec "$0/merged$1/program"
"""


def test_containers_of_one_image_are_one_attachment(compile_c, spawn, wait_for_line, tmp_path):
    program = compile_c("stepper.c", "-O2", "-DOF_AN_IMAGE")

    def start(number):
        command = [*among_own_mounts(OVERLAY), tmp_path, str(number), program]
        return Stepper(spawn(command), tmp_path / f"merged{number}/program", wait_for_line)

    one, events = start(1), []
    with trace.Session(discover=True) as session:
        session.usdt("step:*", f"/proc/{one.pid}/root{one.path}").emit("pid")
        remarks = []
        session.on_remark = remarks.append
        session.start()
        one.fire(97)
        two = start(2)
        assert (two.fire(997), one.fire(97)) == (997, 97)  # without a pause: the inode is attached to
        until(session, events, 2 * 997 + 4 * 97)
        summary = session.summary()
    assert Counter((event.pid, event.probe) for event in events) == {
        (process.pid, probe): count
        for process, count in ((one, 2 * 97), (two, 997))
        for probe in ("step:plain", "step:guarded")
    }
    assert remarks == []
    assert (summary.lost, summary.files, summary.processes) == (0, 1, 2)


INSIDE = 'mount -t tmpfs none "$0"; cp "$1" "$0/program"; exec "$0/program"'


@pytest.fixture
def inside(compile_c, spawn, wait_for_line, tmp_path):
    """inside() -> a program in a container of its own, where it is called tmp_path/inside/program."""
    program, folder = compile_c("stepper.c", "-O2", "-DIN_A_CONTAINER"), tmp_path / "inside"
    folder.mkdir()
    command = [*among_own_mounts(INSIDE), folder, program]
    return lambda: Stepper(spawn(command), folder / "program", wait_for_line)


@pytest.mark.parametrize("spec", ["{}:work", "u:{}:step:plain", "p:{}:work", "{}*:work"])
def test_a_path_that_is_in_containers_only(spec, inside, spawn):
    one, two = inside(), inside()
    words = ("trace", spec.format(one.path), "--json")
    explained = usdtkit(*words, "--explain")
    paths = sorted(json.loads(line)["path"] for line in explained.stdout.splitlines()[1:])
    for path, process in zip(paths, sorted((one, two), key=lambda each: str(each.pid)), strict=True):
        # The second where we are in a chroot, from which the first leads elsewhere.
        assert path == f"/proc/{process.pid}/root{one.path}" or path.startswith(f"/proc/{process.pid}/map_files/")
    tracer = start_tracing(spawn, *words)
    assert (one.fire(997), two.fire(97)) == (0, 0)
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert Counter(event["pid"] for event in events) == {one.pid: 997, two.pid: 97}
    assert (summary["received"], summary["lost"], summary["files"], summary["processes"]) == (997 + 97, 0, 2, 2)


def test_a_path_that_is_here_and_in_a_container(inside, spawn, stepper):
    one = inside()
    shutil.copy(f"/proc/{one.pid}/root{one.path}", one.path)
    here = stepper(one.path)
    tracer = spawn([*USDTKIT, "trace", f"{one.path}:work", "--json"], stderr=subprocess.PIPE)
    read_until(tracer, f"found /proc/{one.pid}/", "stderr")
    assert (one.fire(997), here.fire(97)) == (0, 0)
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert Counter(event["pid"] for event in events) == {one.pid: 997, here.pid: 97}
    assert (summary["lost"], summary["files"]) == (0, 2)


def test_a_path_that_is_nowhere(tmp_path):
    missing = usdtkit("trace", f"{tmp_path}/inside/program:work")
    assert_explained(missing, 4, "no such file, neither here nor in a container that runs it")


def test_after_a_loss_everything_is_looked_at(service, follow, monkeypatch):
    from usdtkit.trace import discovery

    class Forgetful(discovery.MappingStream):
        """Loses all that comes, and says so."""

        def take(self):
            self.lost = len(super().take())
            return []

    monkeypatch.setattr(discovery, "MappingStream", Forgetful)
    service("overlooked")
    events = []
    with trace.Session(discover=True) as session:
        session.usdt("overlooked:order").emit()
        found = follow(session)
        new = service("overlooked", NEW)
        found(new.pid)
        new(97)()
        until(session, events, 97)
    assert [event.pid for event in events] == [new.pid] * 97


def test_a_flood_of_files_does_not_hide_another_users(service, compile_c, spawn, wait_for_line, follow, tmp_path):
    flood = spawn(
        ["setpriv", "--reuid=65534", "--clear-groups", compile_c(FLOOD)],
    )
    try:
        wait_for_line(flood, "flooding")
        service("flooded")
        events = []
        with trace.Session(discover=True) as session:
            session.usdt("flooded:order").emit()
            found = follow(session)
            new = service("flooded", NEW)
            found(new.pid)
            new(97)()
            until(session, events, 97)
            summary = session.summary()
            advice = session.advice()
        assert len(events) == 97
        assert summary.unlooked == 0 or advice
    finally:
        flood.kill()


FLOOD = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
  puts("flooding");
  fflush(stdout);
  for (;;) {
    int file = memfd_create("flood", 0);
    if (file < 0 || write(file, "\177ELF", 4) != 4) return 1;
    void *at = mmap(0, 4096, PROT_EXEC, MAP_PRIVATE, file, 0);
    munmap(at, 4096);
    close(file);
  }
}
"""


def test_within_a_fifth_of_a_second(service, follow):
    """From the moment that the file is mapped, until its first fire is seen; the best of a few, as others run too."""
    service("quick")
    taken = []
    with trace.Session(discover=True) as session:
        session.usdt("quick:order").emit("time")
        session.start()
        for number in range(5):
            new = service("quick", {"declaration": f'number="u64", other{number}="u64"', "values": "number, 7"})
            mapped = time.monotonic_ns()
            new(1)()
            events = []
            until(session, events, 1)
            taken.append(events[0].time_ns - mapped)
    assert min(taken) < 200e6


def test_the_last_line_says_from_where_events_came(service, spawn):
    old = service("lastline")
    tracer = start_tracing(spawn, "trace", "lastline:order")
    found = threading.Thread(target=read_until, args=(tracer, "found ", "stderr"))
    found.start()
    new = service("lastline", NEW)
    new(499)()
    old(97)()
    found.join()
    output, messages = stop_tracing(tracer)
    assert len(output.splitlines()) == 1 + 499 + 97
    assert messages == "received 596, lost 0, from 2 files in 2 processes\n"


def test_waiting_for_the_first_start(service, spawn):
    words = ("trace", "firststart:order", "--json", "--wait")
    tracer = spawn([*USDTKIT, *words], stderr=subprocess.PIPE)
    assert "no probe firststart:order" in read_until(tracer, "waiting: ", "stderr")
    first = service("firststart")
    first(997)()
    read_until(tracer, "Tracing", "stderr")
    header, events, summary = json_lines(stop_tracing(tracer)[0])
    assert header["schema"] == "usdtkit.trace/2"
    assert [event["arguments"] for event in events] == [{"number": n, "customer": "ada"} for n in range(997)]
    assert {event["pid"] for event in events} == {first.pid}
    assert (summary["received"], summary["lost"], summary["files"], summary["processes"]) == (997, 0, 1, 1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-d", "0.3"], 4, "--wait waits for it"),
        (["-c", "true"], 2, "leave out -c"),
    ],
)
def test_a_wait_that_ends_without(words, code, message):
    done = usdtkit("trace", "neverstarted:order", "--wait", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_wait_that_is_interrupted(spawn):
    tracer = spawn([*USDTKIT, "funccount", "neverstarted:order", "--wait"], stderr=subprocess.PIPE)
    read_until(tracer, "waiting: ", "stderr")
    assert stop_tracing(tracer)[0] == ""


def test_without_waiting_the_hint_says_what_can_be_done():
    done = usdtkit("trace", "neverstarted:order")
    assert done.returncode == 4
    assert "usdtkit provider build" in done.stderr
    assert "--wait" in done.stderr


PARENT = r"""
import os, subprocess, sys, time
from usdtkit import Provider
provider = Provider("{provider}")
probe = provider.probe("order", number="u64")
provider.load()
CHILD = '''
from usdtkit import Provider
import time
import urllib.request
probe = Provider("{provider}").probe("order", number="u64", more="u64")
while not probe.enabled:
    time.sleep(0.001)
for number in range(997):
    probe(number, 7)
'''
print("loaded", flush=True)
for line in sys.stdin:
    if line == "fork\n":
        if not os.fork():
            time.sleep(0.3)
            for number in range(997):
                probe(number)
            os._exit(0)
        os.wait()
    else:
        subprocess.run([sys.executable, "-c", CHILD])
    for number in range(97):
        probe(number)
    print("done", flush=True)
"""


@pytest.fixture
def parent(run_python, wait_for_line):
    """parent(provider) -> a process that starts children, `fork` or `start`, as its standard input says."""

    def start(provider):
        process = run_python(PARENT.format(provider=provider))
        wait_for_line(process, "loaded")

        def tell(word):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            wait_for_line(process, "done")

        return process, tell

    return start


def test_children_of_a_process(parent, service):
    """A fork of it, and a program that it starts, whose file is another."""
    process, tell = parent("followed")
    stranger = service("followed")
    events = []
    with trace.Session(pid=process.pid, follow=True) as session:
        session.usdt("followed:order").emit("number")
        session.start()
        tell("fork")
        tell("start")
        stranger.process.stdin.write("97\n")
        until(session, events, 2 * 997 + 2 * 97)
        summary = session.summary()
    counts = Counter(event.pid for event in events)
    assert counts.pop(process.pid) == 2 * 97
    assert sorted(counts.values()) == [997, 997]
    assert stranger.pid not in counts
    assert (summary.lost, summary.files, summary.processes) == (0, 2, 3)


def test_a_process_alone_without_following(parent):
    process, tell = parent("alone")
    with trace.Session(pid=process.pid) as session:
        counts = session.usdt("alone:order").count("pid")
        session.start()
        tell("fork")
        assert counts.read() == {(process.pid,): 97}


def test_children_that_run_already(run_python, wait_for_line):
    source = PARENT.format(provider="already").replace("time.sleep(0.3)", "print('forked', os.getpid()); time.sleep(3)")
    process = run_python(source)
    wait_for_line(process, "loaded")
    process.stdin.write("fork\n")
    process.stdin.flush()
    child = int(wait_for_line(process, "forked").split()[1])
    with trace.Session(pid=process.pid, follow=True) as session:
        counts = session.usdt("already:order").count("pid")
        session.start()
        wait_for_line(process, "done")
        assert counts.read() == {(child,): 997, (process.pid,): 97}


def test_children_of_a_command(tmp_path):
    """What a shell starts, and what that starts."""
    script = tmp_path / "service.py"
    body = PARENT.format(provider="commanded").split("CHILD = ")[0]
    script.write_text(body + "time.sleep(0.3)\nfor number in range(997):\n    probe(number)\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, script], env=environment, check=True)  # makes the file
    words = f"sh -c '{sys.executable} {script}; {sys.executable} {script}; exit 7'"
    done = usdtkit("funccount", "commanded:order", "--json", "-c", words, env=environment)
    assert done.returncode == 0, done.stderr
    _, rows, summary = json_lines(done.stdout)
    assert [row["count"] for row in rows] == [2 * 997]
    assert (summary["files"], summary["processes"], summary["command_status"]) == (1, 2, 7)


def test_many_children_leave_nothing_behind(compile_c, spawn, wait_for_line):
    """More than descriptors are kept for; the check of leaks after each test sees the rest."""
    program = compile_c(FORKS)
    process = spawn([program])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, follow=True) as session:
        calls = session.uprobe(program, "work").count("pid")
        session.start()
        before = len([*Path("/proc/self/fd").iterdir()])
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "over", timeout=60)
        counts = calls.read()
        assert len([*Path("/proc/self/fd").iterdir()]) - before < 120
    assert set(counts.values()) <= {1}
    assert len(counts) > 150


FORKS = r"""
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((noinline)) void work(void) { __asm__ volatile(""); }
int main(void) {
  puts("ready");
  fflush(stdout);
  getchar();
  for (int n = 0; n < 200; n++) {
    if (!fork()) {
      usleep(150000);
      work();
      _exit(0);
    }
    usleep(10000);
  }
  while (wait(NULL) > 0) continue;
  puts("over");
  fflush(stdout);
  getchar();
}
"""


def test_following_is_about_given_processes():
    done = usdtkit("trace", "c:getppid", "--follow")
    assert (done.returncode, "every process is traced" in done.stderr) == (2, True)


@pytest.mark.parametrize("by_pid", [False, True])
def test_djangos_reloader(by_pid, django_project, spawn, wait_for_line, follow):
    """A file of the project is changed: the server starts anew, with another declaration of its probe."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "manage.py", "runserver", address]
    server = spawn(command, cwd=django_project, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stderr=subprocess.STDOUT)

    def fire(times):
        assert urllib.request.urlopen(f"http://{address}/fires/{times}").read() == str(times).encode()

    wait_for_line(server, "development server at", timeout=60)
    fire(1)  # which loads the probe
    with trace.Session(pid=server.pid if by_pid else None, discover=True, follow=by_pid) as session:
        counts = session.usdt("djangoshop:order__placed").count("pid")
        found = follow(session)
        fire(997)
        declaration = django_project / "shop" / "probes.py"
        declaration.write_text(declaration.read_text().replace('number="u64"', 'number="u64", customer="str"'))
        views = django_project / "shop" / "views.py"
        views.write_text(views.read_text().replace("fired(number)", 'fired(number, "ada")'))
        wait_for_line(server, "development server at", timeout=60)
        fire(1)
        found(max(below(server.pid)))
        fire(997)
        by_process = counts.read()
        summary = session.summary()
    assert [count for count in by_process.values() if count >= 997] in ([997, 997], [997, 998])
    assert len(by_process) == 2
    assert (summary.lost, summary.files, summary.processes) == (0, 2, 2)


IMAGE = """
mkdir -p "$0/upper$1" "$0/work$1" "$0/merged$1"
mount -t overlay overlay -o "lowerdir=$0/lower,upperdir=$0/upper$1,workdir=$0/work$1" "$0/merged$1"
cd "$0/merged$1/app"
shift
exec "$@"
"""
APPLICATION = {
    "probes.py": """
from usdtkit import Provider
imaged = Provider("imaged", file="imaged.so")
order = imaged.probe("order", number="u64")
""",
    "service.py": """
from probes import imaged, order
imaged.load()
for number in range(997):
    order(number)
print("fired", flush=True)
input()
""",
}


def test_a_provider_that_was_built_into_an_image(run_python, spawn, wait_for_line, tmp_path):
    """Attached once, before the first container of the image runs; no container is missed, nor its first fire."""
    app = tmp_path / "lower/app"
    app.mkdir(parents=True)
    for name, text in APPLICATION.items():
        (app / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{app}"}
    built = usdtkit("provider", "build", "probes:imaged", "-o", app / "imaged.so", cwd=app, env=environment)
    assert built.returncode == 0, built.stderr
    remarks = []
    with trace.Session(discover=True) as session:
        counts = session.usdt("imaged:order", app / "imaged.so").count("pid")
        session.on_remark = remarks.append
        session.start()
        containers = []
        for number in ("1", "2", "3"):
            command = [*among_own_mounts(IMAGE), tmp_path, number, sys.executable, "service.py"]
            containers.append(spawn(command, env=environment))
            wait_for_line(containers[-1], "fired")
        assert counts.read() == {(container.pid,): 997 for container in containers}
        summary = session.summary()
    assert (summary.lost, summary.files, summary.processes, remarks) == (0, 1, 3, [])


def test_a_file_of_another_user_that_strangers_map(service, run_python, wait_for_line, monkeypatch, tmp_path):
    """It is in a directory of provider files, where its owner decides what it says; only the owner's process counts."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    open_to_all(theirs)
    owner = as_user(65534)
    service("distrusted", NEW, prefix=owner, env={"USDTKIT_DIR": str(theirs)}).process.kill()
    (file,) = theirs.glob("distrusted-*.so")
    service("distrusted")
    monkeypatch.setenv("USDTKIT_DIR", str(theirs))
    maps = 'import ctypes, sys; ctypes.CDLL(sys.argv[1]); print("mapped", flush=True); input()'
    remarks = []
    with trace.Session(discover=True) as session:
        session.usdt("distrusted:order").count()
        session.on_remark = remarks.append
        session.start()
        for uid in (12345, 65534):
            user = as_user(uid)
            process = run_python(maps, str(file), prefix=user)
            wait_for_line(process, "mapped")
            deadline = time.monotonic() + (1 if uid == 12345 else 20)
            while time.monotonic() < deadline and not any(str(file) in remark for remark in remarks):
                time.sleep(0.01)
            assert [remark for remark in remarks if str(file) in remark] == (
                []
                if uid == 12345
                else [f"found {file} (belongs to nobody (uid 65534)), which process {process.pid} maps"]
            )


TLS = """
#include <sys/types.h>
__attribute__((noinline)) int SSL_read(void *ssl, char *to, int size) {
  for (int n = 0; n < size; n++) to[n] = 'a';
  __asm__ volatile("" : : "r"(ssl) : "memory");
  return size;
}
"""
READS = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print("loaded", flush=True)
sys.stdin.readline()
for _ in range(97):
    library.SSL_read(None, ctypes.create_string_buffer(16), 13)
print("read", flush=True)
"""


def test_a_tool_finds_another_copy_of_a_library(compile_c, run_python, spawn, wait_for_line, tmp_path):
    built = compile_c(TLS, "-shared", "-fPIC", "-O1", "-Wl,-soname,libssl.so.3")
    tracer = start_tracing(spawn, "sslsniff", "--json")
    library = Path(shutil.copy(built, tmp_path / "libssl.so.3"))
    process = run_python(READS, str(library))
    wait_for_line(process, "loaded")
    read_until(tracer, f"which process {process.pid} maps", "stderr")
    process.stdin.write("\n")
    process.stdin.flush()
    wait_for_line(process, "read")
    _, rows, summary = json_lines(stop_tracing(tracer)[0])
    own = [row for row in rows if row["pid"] == process.pid]
    assert [(row["library"], row["function"], row["length"]) for row in own] == [("openssl", "READ/RECV", 13)] * 97
    assert summary["lost"] == 0
