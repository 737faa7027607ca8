"""The recipes for web frameworks: the commands in docs/recipes.md are run as they are, and print what it says."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from commandline import USDTKIT, fired_by, until_fired, until_hooked
from processes import read_until

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "programs" / "web_apps"
UP = {"Django": "Booting worker", "FastAPI": "Uvicorn running", "Flask": "Serving on"}
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "recipes.md").read_text(), re.M | re.S))


@pytest.fixture
def directory(tmp_path, request):
    """directory(framework) -> where the service of its recipe is, as the module or package `shop`."""

    def make(framework):
        if framework == "Django":
            return request.getfixturevalue("django_project")
        (tmp_path / "shop.py").write_text((APPS / f"{framework.lower()}_app.py").read_text())
        return tmp_path

    return make


def words_of(command, port, pid=0):
    words = shlex.split(command.replace("8000", str(port)).replace("PID", str(pid)))
    assert words[0] == "usdtkit"
    return [*USDTKIT, *words[1:]]


def worker_of(process):
    """The process that serves: the only child, if there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid


def shape_of(output):
    """The lines without what differs from run to run: times, processes, latencies."""
    for line in output.splitlines():
        line = re.sub(r"^\d\d:\d\d:\d\d\.\d+ +\d+ \S+ +(\d+\.\d\d(?= ))?", "", line)
        line = re.sub(r"\d+ us\b", "N us", line)
        if line and not re.fullmatch(r"\d\d:\d\d:\d\d", line):
            yield line.rstrip()


@pytest.mark.parametrize("framework", UP)
def test_a_recipe(framework, directory, spawn, wait_for_line):
    start, requests, *traces = [block.strip() for block in re.findall(r"```\n(.*?)```", SECTIONS[framework], re.S)]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    place = directory(framework)
    # To a file, because nobody reads what the service logs after its start.
    with (place / "log").open("w") as log, (place / "log").open() as read:
        variables = os.environ | {"PYTHONPATH": f"{ROOT}:{place}", "PYTHONUNBUFFERED": "1"}
        service = spawn(words_of(start, port), cwd=place, env=variables, stdout=log, stderr=log)
        wait_until_up(service, read, UP[framework])
    pid = worker_of(service)
    for block in traces:
        command, expected = block.removeprefix("# ").split("\n", 1)
        shown = sorted(shape_of(expected))
        for _ in range(4):  # a busy machine may be slow with a request that should not be
            output = traced(spawn, words_of(command, port, pid), requests.replace("8000", str(port)), pid)
            if (seen := sorted(shape_of(output))) == shown:
                break
        assert seen == shown, command


def traced(spawn, command, requests, pid):
    """What the command prints of these requests."""
    tracer = spawn(command, stderr=subprocess.PIPE)
    read_until(tracer, "Tracing", stream="stderr", timeout=60)
    until_hooked(pid)
    done = re.search(r"\w+:request__done", shlex.join(command))
    before = done and fired_by(pid, done[0])
    for each in requests.splitlines():
        curl, *words = shlex.split(each)
        subprocess.run([curl, "-s", "-o", "/dev/null", *words], check=True)
    if done:  # just after the response
        until_fired(pid, done[0], before + len(requests.splitlines()))
    tracer.send_signal(signal.SIGINT)
    output, messages = tracer.communicate(timeout=60)
    assert tracer.returncode == 0, messages
    return output


def wait_until_up(service, log, text, timeout=60):
    deadline = time.monotonic() + timeout
    said = ""
    while text not in said:
        assert service.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.05)
        said += log.read()
