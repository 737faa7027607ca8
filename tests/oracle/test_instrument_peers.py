"""Programs made for CPython's own probes work on ours unchanged: bcc's language tools and bpftrace."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from processes import read_until
from programs import language
from pythons import environment, tree_for, versions

pytestmark = [pytest.mark.kernel, pytest.mark.machine]

ROOT = Path(__file__).parents[2]
PROGRAM = Path(language.__file__)
CALLS = language.CALLS + language.THREADS


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """Ours, and what bcc's tools want besides: a machine need not have the kernel's."""
    folder = tmp_path_factory.mktemp("lent") / "headers"
    shutil.copytree(ROOT / "usdtkit" / "bpf" / "headers", folder)
    (folder / "include" / "linux" / "sched.h").write_text("#define TASK_COMM_LEN 16\n")
    with (folder / "include" / "linux" / "types.h").open("a") as types:
        for bits in (8, 16, 32, 64):
            types.write(f"typedef u{bits} uint{bits}_t; typedef s{bits} int{bits}_t;\n")
    return folder


# What hooks they stand on differs before and after 3.12.
@pytest.fixture(params=[versions()[0], *versions((3, 12))[:1]])
def program(request, tmp_path_factory, spawn, wait_for_line):
    """A process that has published its probes, and waits for a tracer."""
    path, tree = tree_for(request.param, tmp_path_factory.getbasetemp())
    process = spawn([path, PROGRAM, "install"], env=environment(tree), cwd="/")
    wait_for_line(process, "ready")
    return process


@pytest.fixture
def peer(spawn, headers, program):
    """peer(probes, command…) -> its output over the program's scenario, which begins when these probes are traced."""

    def run(probes, begun, *command):
        variables = os.environ | {"BCC_KERNEL_SOURCE": str(headers), "PYTHONUNBUFFERED": "1"}
        tracer = spawn(command, env=variables, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        first = read_until(tracer, begun, timeout=60)
        program.stdin.write(f"{probes}\n")
        program.stdin.flush()
        read_until(program, "done", timeout=120)
        # Old ones miss a signal that comes while they do not wait for events.
        for patience in (5, 10, 60):
            os.killpg(tracer.pid, signal.SIGINT)  # Debian's are shell scripts that call the tool
            with contextlib.suppress(subprocess.TimeoutExpired):
                return first + tracer.communicate(timeout=patience)[0]
        pytest.fail(f"{command[0]} does not end")

    return run


# Debian calls this one what bcc does, and puts -bpfcc behind the names of those that call it.
@pytest.mark.parametrize("command", [["pythoncalls-bpfcc"], ["/usr/sbin/ucalls", "-l", "python"]], ids=" ".join)
def test_calls(command, peer, program):
    output = peer("function__entry", "Tracing", *command, program.pid)
    found = dict(re.findall(r"language\.py\.(\w+) +(\d+)", output))
    assert (found["leaf"], found["recurse"]) == (str(CALLS), str(language.DEPTH)), output


def test_pythonflow(peer, program):
    output = peer("function__entry,function__return", "Tracing", "pythonflow-bpfcc", "-M", "recurse", program.pid)
    for arrow in ("->", "<-"):
        assert len(re.findall(rf"{arrow} [^\n]*language\.py\.recurse\n", output)) == language.DEPTH, output[-2000:]


def test_pythongc(peer, program):
    output = peer("gc__start,gc__done", "Tracing", "pythongc-bpfcc", program.pid)
    assert len(re.findall(r"(?:^|quit[.])[0-9.]+ +[0-9.]+ ", output, re.MULTILINE)) == language.COLLECTIONS, output


SCRIPT = """
usdt:*:python:function__entry /str(arg1) == "leaf"/ { @calls = count(); }
usdt:*:python:gc__done { @collections = count(); }
"""


def test_bpftrace(peer, program):
    output = peer("function__entry,gc__done", "Attaching", "bpftrace", "-p", program.pid, "-e", SCRIPT)
    assert dict(re.findall(r"@(\w+): (\d+)", output)) == {
        "calls": str(CALLS),
        "collections": str(language.COLLECTIONS),
    }, output
