"""Python's functions in the stacks of stackcount: of Debian's newest CPython (`.ci/framed-python`), here and in a
container, also where each has code of its own (-X perf); and what is said where they cannot be shown."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commandline import json_lines
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
CALLS = (("Shop.gamma", 6), ("beta", 10), ("alpha", 13), ("serve", 22), ("<module>", 27))


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
    """stackcount(command, pattern) -> (counts by the frames, standard error) of what a command does."""

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
            found[tuple((frame["kind"], frame["name"], frame["file"], frame["line"]) for frame in row["stack"])] += row[
                "count"
            ]
        return found, errors

    return run


def innermost(pid):
    """The process that runs the program: behind those that made its container, and forked from the first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return innermost(int(children[0])) if children else pid


def python_functions(counts):
    found = Counter()
    for frames, count in counts.items():
        functions = tuple((name, line) for kind, name, file, line in frames if kind == "python" and file == "<string>")
        found[functions] += count
        assert not [name for _, name, _, _ in frames if name and name.startswith(("py::", "_PyEval_EvalFrameDefault"))]
    return found


@pytest.mark.parametrize("arguments", [[], ["fork"]], ids=["itself", "forked"])
@pytest.mark.parametrize("options", [[], ["-X", "perf"]], ids=["plain", "perf"])
@pytest.mark.parametrize("place", ["host", "container"])
def test_python_functions_that_lead_to_a_c_function(place, options, arguments, framed, stackcount):
    command = [*framed.command(place), *options, "-c", SOURCE, *arguments]
    counts, errors = stackcount(command, f"{framed.libc}:getppid")
    assert python_functions(counts) == {CALLS: 97}
    assert {frames[0][1] for frames in counts} == {"getppid"}
    assert "Python's functions" not in errors


def test_python_functions_that_lead_to_a_probe(framed, stackcount):
    counts, _ = stackcount(
        [*framed.command("container"), "-c", SOURCE], f"u:{framed.root}{framed.inside}:python:gc__start"
    )
    found = python_functions(counts)
    found.pop((), None)  # the interpreter collects at its own end too
    assert found == {(("Shop.gamma", 7), *CALLS[1:]): 97}


INTERPRETER = """
#include <stdio.h>
#include <unistd.h>
__attribute__((visibility("default"))) char _PyRuntime[1024] = {1};
int main(void) {
    setlinebuf(stdout);
    puts("ready");
    getchar();
    for (int n = 0; n < 97; n++) getppid();
    puts("done");
    getchar();
    return 0;
}
"""


def test_what_is_said_where_python_functions_cannot_be_shown(stackcount, compile_c):
    program = compile_c(INTERPRETER, "-O2", "-rdynamic")
    counts, errors = stackcount([program], "c:getppid")
    assert python_functions(counts) == {(): 97}
    assert f"Python's functions are not in its stacks: {program}: CPython of an unknown version; usdtkit run" in errors
    assert "Python's functions" not in stackcount(["/usr/bin/python3", "-c", SOURCE], "c:getppid")[1]
