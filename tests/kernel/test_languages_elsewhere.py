"""Runtimes that are not where one would look: in a container with a library of its own, below another process, embedded
in a program of another name.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit
from processes import among_own_mounts

pytestmark = pytest.mark.machine

WORK = Path(__file__).parents[1] / "programs" / "languages"
# The whole tree once more, but for one file, which is another one at the same path; that becomes the root.
CONTAINER = """
mount --rbind / "$1"; mount --bind "$2" "$1$3"
exec unshare --pid --fork --kill-child sh -ec 'cd "$1"; mount -t proc proc proc; shift 3; exec chroot . "$@"' sh "$@"
"""


@pytest.fixture
def contained(spawn, wait_for_line, tmp_path):
    """contained(own, argv) -> (process, pid) of a program of tests/programs/languages in a container that has a copy of
    the file `own`."""

    started = []

    def start(own, argv):
        root, copy = tmp_path / "root", shutil.copy(own, tmp_path)
        root.mkdir()
        words = [*among_own_mounts(CONTAINER), "sh", root, copy, own, *argv]
        process = spawn(words, env=os.environ | {"USE_ZEND_DTRACE": "1"})
        wait_for_line(process, "ready", timeout=60)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        started.append(process)
        return process, int(child)

    yield start
    for process in started:
        process.kill()  # unshare takes no other notice


def own_file(program, pattern=None):
    """The file of a program, or the library that it maps whose path has this pattern."""
    path = os.path.realpath(shutil.which(program))
    if pattern is None:
        return path
    linked = subprocess.run(["ldd", path], text=True, capture_output=True, check=True).stdout
    return os.path.realpath(re.search(pattern, linked)[0])


OWN = {
    "php": (own_file("php"), ["php", WORK / "work.php"]),
    "ruby": (own_file("ruby", r"/\S+/libruby\S+"), ["ruby", WORK / "work.rb"]),
    "java": (
        str(Path(own_file("java")).parents[1] / "lib/server/libjvm.so"),
        ["java", "-XX:+UseSerialGC", "-XX:+DTraceMethodProbes", WORK / "Work.java"],
    ),
}


@pytest.mark.parametrize("language", OWN)
def test_calls_in_a_container(language, contained, spawn, wait_for_line):
    own, argv = OWN[language]
    process, pid = contained(own, argv)
    assert f"{own}\n" in Path(f"/proc/{pid}/maps").read_text()
    tracer = start_tracing(spawn, "ucalls", str(pid), "--json", "-M", "leaf")
    go(process)
    wait_for_line(process, "done", timeout=60)
    output, messages = stop_tracing(tracer)
    assert [(row["method"][-4:], row["calls"]) for row in json_lines(output)[1]] == [("leaf", 997)], messages


def test_workers_are_not_forgotten(spawn, wait_for_line):
    source = """
import gc, os, sys
if os.fork() == 0 or os.fork() == 0:
    os.write(1, b"ready\\n")
for line in sys.stdin:
    gc.collect()
"""
    server = spawn(["/usr/bin/python3", "-c", source])
    for _ in range(2):
        wait_for_line(server, "ready")
    said = usdtkit("ugc", server.pid, "-d", "0.1").stderr
    everyone = re.search(r"all of them: ([\d,]+)", said)[1]
    assert len(everyone.split(",")) == 3
    assert "all of them" not in usdtkit("ugc", "-p", everyone, "-d", "0.1").stderr


EMBEDDING = r"""
#include <Python.h>
int main(int argc, char **argv)
{
    FILE *file = fopen(argv[1], "r");
    Py_Initialize();
    int failed = PyRun_SimpleFile(file, argv[1]);
    return failed ? 1 : Py_FinalizeEx();
}
"""


def test_python_within_a_c_program(compile_c, spawn, wait_for_line):
    flags = subprocess.run(
        ["/usr/bin/python3-config", "--includes", "--embed", "--ldflags"], text=True, capture_output=True, check=True
    ).stdout
    process = spawn([compile_c(EMBEDDING, *flags.split()), WORK / "work.py"])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "ugc", str(process.pid), "--json")
    threads = start_tracing(spawn, "uthreads", "-l", "c", str(process.pid), "--json")
    go(process)
    wait_for_line(process, "done")
    assert len(json_lines(stop_tracing(tracer)[0])[1]) == 13
    assert len(json_lines(stop_tracing(threads)[0])[1]) == 31


def test_a_node_by_another_name(spawn, wait_for_line):
    source = """
process.title = "python3";
process.stdin.once("data", () => { for (let n = 0; n < 13; n++) global.gc(); process.exit(0); });
console.log("ready");
"""
    process = spawn(["node", "--expose-gc", "-e", source])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "ugc", str(process.pid), "--json", "-F", "testing")
    go(process)
    assert len(json_lines(end_of_tracing(tracer)[0])[1]) == 13
