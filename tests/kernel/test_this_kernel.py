"""What the running kernel has is found and used, whichever it is. The oracle is its release: no code of ours asks."""

import json
import os
import re
import time

import pytest

from usdtkit import trace
from usdtkit.cli import doctor, main
from usdtkit.errors import UnsupportedError
from usdtkit.kernel.attach.links import METHODS

SINCE = {"ring buffer": (5, 8), "cookies": (5, 15), "uprobe_multi": (6, 6)}
RELEASE = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
HERE = [method for method in METHODS if SINCE.get(method, (0, 0)) <= RELEASE]


def test_doctor_says_what_this_kernel_has(monkeypatch, capsys):
    # Compiling takes half a minute where the processor is emulated; test_doctor tries that.
    monkeypatch.setattr(doctor, "_compiler", lambda: doctor.Row("compiler", "found", "", "", ""))
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines()[1:])}
    for name, since in SINCE.items():
        assert rows[name]["state"] == ("found" if since <= RELEASE else "missing"), rows[name]
    assert {rows[name]["state"] for name in ("uprobes", "semaphores", "bpf")} == {"found"}


def test_the_best_way_to_attach_is_taken(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        session.usdt("step:plain").emit(number=trace.arg(1))
        session.start()
        assert session._running._links.method == HERE[0]
        target.fire(97)
        assert [event.number for event in session.drain()] == list(range(97))


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: method.replace("_", " ")
)  # `selection` leaves out others
def test_a_way_that_this_kernel_lacks_is_an_error(stepper, method):
    target = stepper()
    with trace.Session(pid=target.pid, method=method) as session:
        session.usdt("step:plain").count()
        if method in HERE:
            session.start()
        else:
            with pytest.raises(UnsupportedError, match=method) as raised:
                session.start()
            assert raised.value.hint
    assert target.fire(13) == 0


KILLED = """
import sys
from usdtkit import trace
for method in sys.argv[2:]:
    session = trace.Session(method=method)
    session.usdt("step:*", path=sys.argv[1]).emit(n=trace.arg(1))
    session.uprobe(sys.argv[1], "work").count()
    session.uretprobe(sys.argv[1], "work").count()
    session.start()
    sys.modules[method] = session
print("attached", flush=True)
sys.stdin.read()
"""


def test_kill_9_leaves_nothing(stepper, run_python, wait_for_line):
    target = stepper()
    tracer = run_python(KILLED, target.path, *HERE)
    wait_for_line(tracer, "attached", timeout=60)
    assert target.fire(97) == 97
    tracer.kill()
    tracer.wait(20)
    deadline = time.monotonic() + 20  # for the kernel to bury it
    while target.fire(13):
        assert time.monotonic() < deadline
