"""Python's functions in native stacks: of a CPython with frame pointers (`.ci/framed-python`) and perf trampolines."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commandline import json_lines, names
from processes import among_own_mounts
from pythons import framed_root

ROOT = Path(__file__).parents[2]
SOURCE = """
import gc, os, sys

class Shop:
    def gamma(self):
        os.getppid()
        gc.collect()

def beta(shop):
    shop.gamma()

def alpha(shop):
    beta(shop)

def serve():
    if "fork" in sys.argv and (child := os.fork()):
        os.waitpid(child, 0)
        return
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(97):
        alpha(Shop())
    print("done", flush=True)
    sys.stdin.readline()

gc.disable()
serve()
"""
CALLS = [f"py::{name}:<string>" for name in ("Shop.gamma", "beta", "alpha", "serve", "<module>")]


class Framed:
    """A root directory with a CPython that has frame pointers."""

    def __init__(self, root):
        self.root = root
        [self.here] = root.glob("usr/bin/python3.*-here")
        self.inside = "/usr/bin/" + self.here.name.removesuffix("-here")
        [self.libc] = root.glob("usr/lib/*-linux-gnu/libc.so.6")

    def command(self, place):
        """What starts it: on this machine's root directory, or in a container."""
        script = 'mount -t tmpfs none "$1/tmp"; exec unshare --pid --fork --kill-child chroot "$@"'
        container = [*among_own_mounts(script), "sh", self.root, self.inside]
        return container if place == "container" else [self.here]


@pytest.fixture
def framed():
    root = framed_root()
    if root is None:
        pytest.skip("there is no CPython with frame pointers: .ci/framed-python fetches one")
    return Framed(root)


@pytest.fixture
def stackcount(spawn, wait_for_line):
    """stackcount(command, pattern) -> (counts by the labels of the frames, standard error) of what a command does."""

    def run(command, pattern):
        target = spawn(command)
        wait_for_line(target, "ready", timeout=60)
        pid = innermost(target.pid)
        words = [sys.executable, "-m", "usdtkit", "stackcount", "-p", pid, pattern, "--json"]
        tool = spawn(words, cwd=ROOT, stderr=subprocess.PIPE)
        wait_for_line(tool, "Tracing", stream="stderr", timeout=60)
        target.stdin.write("\n")
        target.stdin.flush()
        wait_for_line(target, "done", timeout=60)
        target.communicate("\n")
        output, errors = tool.communicate(timeout=60)
        assert tool.returncode == 0, errors
        for number in {pid, target.pid}:
            Path(f"/tmp/perf-{number}.map").unlink(missing_ok=True)
        _, rows, summary = json_lines(output)
        assert (summary["lost"], summary["no_stack"]) == (0, 0)
        found = Counter()
        for row in rows:
            found[tuple(names(row["stack"]))] += row["count"]
        return found, errors

    return run


def innermost(pid):
    """The process that runs the program: behind those that made its container, and forked from the first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return innermost(int(children[0])) if children else pid


def python_functions(counts):
    found = Counter()
    for labels, count in counts.items():
        found[tuple(label for label in labels if label and label.startswith("py::"))] += count
    return found


@pytest.mark.parametrize("arguments", [[], ["fork"]], ids=["itself", "forked"])
@pytest.mark.parametrize("place", ["host", "container"])
def test_python_functions_that_lead_to_a_c_function(place, arguments, framed, stackcount):
    command = [*framed.command(place), "-X", "perf", "-c", SOURCE, *arguments]
    counts, errors = stackcount(command, f"{framed.libc}:getppid")
    assert python_functions(counts) == {tuple(CALLS): 97}
    assert {labels[0] for labels in counts} == {"getppid"}
    assert "Python's functions" not in errors


def test_python_functions_that_lead_to_a_probe(framed, stackcount):
    command = [*framed.command("container"), "-X", "perf", "-c", SOURCE]
    counts, _ = stackcount(command, f"u:{framed.root}{framed.inside}:python:gc__start")
    found = python_functions(counts)
    del found[()]  # the interpreter collects at its own end too
    assert found == {tuple(CALLS): 97}


INTERPRETER = """
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) int _PyEval_EvalFrameDefault(int times) {
    int sum = 0;
    while (times--) sum += getppid();
    return sum;
}
int main(void) {
    setlinebuf(stdout);
    puts("ready");
    getchar();
    int sum = _PyEval_EvalFrameDefault(97);
    puts("done");
    getchar();
    return sum == 0;
}
"""


def test_what_to_do_where_no_python_function_is_seen(framed, stackcount, compile_c, tmp_path):
    _, errors = stackcount([*framed.command("host"), "-c", SOURCE], f"{framed.libc}:getppid")
    assert f"{framed.here.name} does not show Python's functions in stacks: start it as python -X perf" in errors
    _, errors = stackcount(["/usr/bin/python3", "-X", "perf", "-c", SOURCE], "c:getppid")
    assert "in stacks: from CPython 3.12 on, python -X perf does; usdtkit run, and uflow or ucalls" in errors
    program = tmp_path / "python3.13"
    shutil.copy(compile_c(INTERPRETER, "-O2", "-fomit-frame-pointer"), program)
    _, errors = stackcount([program], "c:getppid")
    assert "python3.13 does not show Python's functions in stacks: it was compiled without frame pointers" in errors
