"""Who traces learns of calls that were not fired, and the program that is traced of none of this but by its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import Provider, trace
from usdtkit.kernel.attach.links import METHODS

# Arguments: how often to fire. Waits for a tracer; every third call is wrong, each in its own way.
SERVICE = """
import sys, time
from usdtkit import Provider

class Leaves:
    def __index__(self):
        sys.exit(3)

    __float__ = __str__ = __index__

class Deep:
    def __str__(self):
        return str(self)

shop = Provider("rejecting")
request = shop.probe("request", user_id="u64", body="json")
other = shop.probe("other")
shop.load()
print("ready", flush=True)
while not request.enabled:
    time.sleep(0.01)
wrong = [(None, 1), (-1, 1), (Leaves(), 1), (1, Leaves()), (1, Deep()), (1,), (1, 2, 3), ()]
for number in range(int(sys.argv[1])):
    request(*wrong[number // 3 % len(wrong)]) if number % 3 == 0 else request(number, {"number": number})
    other()
request.lazy(lambda: sys.exit(4))
request(no_such_argument=1)
print(f"served all {request.dropped}", flush=True)
"""
FIRED = 997
WRONG = len(range(0, FIRED, 3)) + 2  # and the last two


@pytest.mark.parametrize("method", METHODS)
def test_the_tracer_counts_what_was_not_fired(spawn, wait_for_line, method):
    process = spawn([sys.executable, "-c", SERVICE, str(FIRED)], stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid, method=method) as session:
        session.usdt("rejecting:request").emit("user_id")
        counts = session.usdt("rejecting:request").count()  # a second source of the probe counts no call twice
        session.usdt("rejecting:other").count("pid")
        session.start()
        assert wait_for_line(process, "served all") == f"served all {WRONG}"
        assert process.wait(20) == 0
        events = list(session.drain())
        assert [event.user_id for event in events] == [number for number in range(FIRED) if number % 3]
        assert counts.read() == {(): len(events)}
        summary = session.summary()
        assert (summary.received, summary.lost, summary.rejected) == (len(events), 0, WRONG)
        (advice,) = session.advice()
    assert advice.startswith(f"rejecting:request was called {WRONG} times with values that do not fit")
    assert session.summary().rejected == WRONG  # also when the session is closed
    log = process.stderr.read()
    assert log.count("probe rejecting:request: a call was not fired") == log.count("\n") == 1
    assert "'user_id' must be u64, not NoneType" in log


def test_the_command_line_says_so(tmp_path):
    program = tmp_path / "service.py"
    program.write_text(SERVICE)
    command = [sys.executable, "-m", "usdtkit", "trace", "rejecting:request"]
    # The file is there before the program is started, so that the tracer finds the probe.
    shop = Provider("rejecting")
    shop.probe("request", user_id="u64", body="json")
    shop.probe("other")
    path = shop.build()
    command[-1] = f"u:{path}:rejecting:request"
    run = [*command, "-c", f"{sys.executable} {program} 97"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "served all 35" in done.stdout
    assert "received 64, lost 0, from 1 file in 1 process, 35 calls not fired, values do not fit" in done.stderr
    assert "rejecting:request was called 35 times with values that do not fit" in done.stderr
    done = subprocess.run([*run, "--json"], capture_output=True, text=True, timeout=60)
    (summary,) = [json.loads(line)["summary"] for line in done.stdout.splitlines() if line.startswith('{"summary"')]
    assert (summary["received"], summary["lost"], summary["rejected"]) == (64, 0, 35)


def test_a_pair_and_a_file_of_nobody_elses(declare):
    """A wrong call in this process, seen by a pair; and a program of other tools has nothing to count."""
    start, done = declare("mine:start", id="u8"), declare("mine:done", id="u8")
    with trace.Session(pid=os.getpid()) as session:
        pair = session.pair(trace.usdt("mine:start"), trace.usdt("mine:done"), key="id")
        pair.emit("id")
        session.start()
        for number in range(256 + 31):
            start(number)
            done(number)
        assert len(list(session.drain())) == 256
        assert session.summary().rejected == 2 * 31
    assert (start.dropped, done.dropped) == (31, 31)


def test_nothing_is_counted_of_other_files(stepper):
    target = stepper()
    with trace.Session(pid=target.pid) as session:
        session.usdt("step:guarded", path=target.path).count()
        session.start()
        target.fire(97)
        assert (session.summary().hits, session.summary().rejected) == (97, 0)
    target.finish()


def test_the_second_site_of_each_probe_is_where_the_file_has_it(tmp_path):
    from usdtkit.elf import Image, read_probes

    for nop in ("safe", "fast"):
        shop = Provider(f"places_{nop}", nop=nop)
        for number in range(3):
            shop.probe(f"probe_{number}")
        with Image.open(shop.build(tmp_path / f"{nop}.so")) as image:
            sites = [site for probe in read_probes(image) for site in probe.sites]
            assert [site.rejected_offset - site.file_offset for site in sites] == [14] * 3
            assert {image.read(site.rejected_offset, 2) for site in sites} == {b"\x90\xc3"}
    with Image.open(Path(sys.executable).resolve()) as image:
        assert {site.rejected_offset for probe in read_probes(image) for site in probe.sites} <= {0}
