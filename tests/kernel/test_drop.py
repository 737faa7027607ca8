"""A tracer that has attached needs no privilege any more, and can give up all of them."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from commandline import assert_explained, json_lines, start_tracing, stop_tracing, usdtkit

from usdtkit import trace
from usdtkit.errors import UsageError

NOBODY = 65534
# Arguments: the file to trace; a user, or "" for the default. Says what it has become, what it got, what it may do.
TRACER = """
import json, os, sys
from usdtkit import trace
path, user = sys.argv[1:]
with trace.Session(drop_privileges=user or True) as session:
    source = session.usdt("step:plain", path=path)
    source.emit("arg1", stack=trace.ustack)
    counts = source.count("pid")
    session.start()
    print(open("/proc/self/status").read().replace("\\n", ";"), flush=True)
    sys.stdin.readline()
    events = list(session.drain())
    def refused(act):
        try:
            act()
        except PermissionError:
            return True
    print(json.dumps({
        "events": len(events), "counted": sum(counts.read().values()), "summary": session.summary().hits,
        "refused": [refused(lambda: os.setuid(0)), refused(lambda: open("/etc/shadow"))],
    }), flush=True)
"""


def status_of(line):
    return dict(field.split(":\t", 1) for field in line.strip().split(";") if ":\t" in field)


def assert_powerless(status, uid):
    assert status["Uid"].split() == status["Gid"].split() == [str(uid)] * 4
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["Groups"].strip() == "" and status["NoNewPrivs"] == "1"


@pytest.mark.parametrize(("user", "uid"), [("", NOBODY), ("4242", 4242), ("nobody", NOBODY)])
def test_it_reads_on_without_any_privilege(run_python, stepper, user, uid):
    target = stepper()
    tracer = run_python(TRACER, target.path, user, env={"SUDO_UID": "0"})
    assert_powerless(status_of(tracer.stdout.readline()), uid)
    assert target.fire(997) == 0
    tracer.stdin.write("\n")
    tracer.stdin.flush()
    said = json.loads(tracer.stdout.readline())
    assert tracer.wait(20) == 0
    assert (said["events"], said["counted"], said["summary"]) == (997, 997, 997)
    assert said["refused"] == [True, True]
    assert target.fire(13) == 0


def test_the_caller_of_sudo(run_python, stepper):
    tracer = run_python(TRACER, stepper().path, "", env={"SUDO_UID": "4242"})
    assert_powerless(status_of(tracer.stdout.readline()), 4242)
    tracer.stdin.close()


def test_every_tracing_command(spawn):
    tracer = start_tracing(spawn, "gethostlatency", "--json", "--drop")
    assert_powerless(status_of(Path(f"/proc/{tracer.pid}/status").read_text().replace("\n", ";")), NOBODY)
    getent = spawn(["getent", "ahosts", "localhost"])
    assert getent.wait(20) == 0
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    assert [event["host"] for event in events if event["pid"] == getent.pid] == ["localhost"]


def test_a_command_is_run_by_that_user_and_ends_with_the_tracer():
    command = "sh -c 'id -u; id -G; exec sleep 1000'"
    done = usdtkit("trace", "p:c:exit", "--drop-to", "4242", "-c", command, "-d", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count("4242") == 2


@pytest.mark.parametrize("user", ["root", "0", "nosuchuser", ""])
def test_users_to_whom_nobody_can_drop(user):
    done = usdtkit("trace", "p:c:exit", f"--drop-to={user}")
    assert_explained(done, 2, "hint")


def test_before_the_start_there_is_nothing_to_drop():
    with trace.Session() as session:
        with pytest.raises(UsageError):
            session.drop_privileges()
    with trace.Session(command=["true"]) as session:
        session.uprobe("c", "exit").count()
        session.start()
        with pytest.raises(UsageError):
            session.drop_privileges()


STACKS = """
import json, sys
from usdtkit import trace
path, *command = sys.argv[1:]
with trace.Session(command=command or None, command_stdout=2, drop_privileges=True) as session:
    events = session.uprobe(path, "work").emit("pid", stack=trace.ustack)
    session.start()
    print("ready", flush=True)
    if command:
        events = list(session)
    else:
        sys.stdin.readline()
        events = list(session.drain())
    print(json.dumps([(event.pid, event.stack.end, event.stack.frames[-1].name) for event in events]), flush=True)
"""


def test_stacks_of_a_command_stay_whole(run_python, compile_c, tmp_path):
    """Its code is learned by a process without privileges, from what was read before they were given up."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = shutil.copy(compile_c("chains.c", "-O2"), directory)
        tracer = run_python(STACKS, path, path, "997", "exit", stdin=subprocess.DEVNULL)
        assert tracer.stdout.readline() == "ready\n"
        events = json.loads(tracer.stdout.readline())
    assert len(events) == 3 * 997
    assert {tuple(event[1:]) for event in events} == {("", "_start")}


def test_stacks_of_processes_that_may_not_be_looked_at_are_cut(run_python, stepper):
    known = stepper()
    tracer = run_python(STACKS, known.path)
    assert tracer.stdout.readline() == "ready\n"
    late = stepper()
    known.fire(997)
    late.fire(13)
    tracer.stdin.write("\n")
    tracer.stdin.flush()
    events = json.loads(tracer.stdout.readline())
    assert [end for pid, end, _ in events if pid == known.pid] == 997 * [""]
    assert [end for pid, end, _ in events if pid == late.pid] == 13 * ["memory that is not known to have code"]
