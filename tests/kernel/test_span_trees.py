"""`usdtkit trace --tree`: the spans of tasks and threads that take turns are the tree that the program made."""

import os
import re
import subprocess
import sys

import pytest
from commandline import json_lines, usdtkit

pytestmark = pytest.mark.machine

SERVICE = """
import asyncio, sys, threading
from usdtkit import Provider

work = Provider("treework")
step = work.define_span("step", name="str")
other = work.probe("other", number="u64")

@work.traced(name="query", arguments={"name": "str"})
async def query(name):
    await asyncio.sleep(0)
    if name.endswith("1.query"):
        raise LookupError(name)

async def task(name, depth):
    async with step(name):
        await asyncio.sleep(0)
        try:
            await query(f"{name}.query")
        except LookupError:
            pass
        if depth:
            await asyncio.gather(*(task(f"{name}.{child}", depth - 1) for child in range(3)))
        other(depth)
        with work.span("step", name=f"{name}.last"):
            await asyncio.sleep(0)

def thread(name):
    with step(name):
        meet.wait(30)
        asyncio.run(task(f"{name}.0", 1))
        meet.wait(30)

meet = threading.Barrier(4)

def main():
    threads = [threading.Thread(target=thread, args=(f"thread{number}",)) for number in range(4)]
    for each in threads:
        each.start()
    asyncio.run(tasks())
    for each in threads:
        each.join()
    step("open").__enter__()
    with step("open.within"):
        pass

async def tasks():
    await asyncio.gather(*(task(f"task{number}", 3) for number in range(5)))
"""
# In each task a step, a query and a last step.
TASKS = 5 * (1 + 3 + 9 + 27) + 4 * (1 + 3)
SPANS = 3 * TASKS + 4 + 2


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "treework.py").write_text(SERVICE)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    command = [sys.executable, "-c", "import treework; print(treework.work.build())"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "service.py").write_text("import treework\ntreework.main()\n")
    return path, f"{sys.executable} {tmp_path / 'service.py'}"


def test_the_tree_is_exact(program):
    path, command = program
    done = usdtkit("trace", "--tree", "--json", f"u:{path}:treework:*", "-c", command)
    assert done.returncode == 0, done.stderr
    _, spans, summary = json_lines(done.stdout)
    assert (summary["received"], summary["lost"]) == (2 * SPANS - 1 + TASKS, 0)
    assert len(spans) == len({span["span"] for span in spans}) == SPANS
    names = {span["span"]: span["arguments"]["name"] for span in spans}
    above = []
    for span in spans:
        name = span["arguments"]["name"]
        assert (names[span["parent_span"]] if span["parent_span"] else "") == name.rpartition(".")[0]
        assert span["depth"] == name.count(".")
        del above[span["depth"] :]
        assert [each["arguments"]["name"] for each in above] == [
            name[: match.start()] for match in re.finditer(r"\.", name)
        ]
        above.append(span)
        assert span["trace_id"] == above[0]["trace_id"]
        assert (span["latency_ns"] is None) == (span["error"] is None) == (name == "open")
        assert span["error"] == ("LookupError" if name.endswith("1.query") else None if name == "open" else "")
    assert len({span["trace_id"] for span in spans}) == 5 + 4 + 1


def test_the_table_is_indented(program):
    path, command = program
    done = usdtkit("trace", "--tree", f"u:{path}:treework:*", "-c", command)
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "SPAN"]
    assert len(lines) == SPANS
    column = heading.index("SPAN")
    assert [line[column:] for line in lines[-2:]] == ['step name="open" open', '  step name="open.within"']
    errors = [line[column:] for line in lines if line.endswith(" LookupError")]
    assert '  query name="task1.query" LookupError' in errors
    assert len(errors) == sum(name.endswith("1.query") for name in re.findall('"(.*?)"', done.stdout))


def test_what_has_no_spans_is_refused(program):
    path, command = program
    for words in (["--tree", f"u:{path}:treework:other"], ["--tree", f'u:{path}:treework:step__start "%s", name']):
        done = usdtkit("trace", *words, "-c", command)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--tree needs the starts of spans" in done.stderr
    assert usdtkit("trace", "--tree", "-U", f"u:{path}:treework:*").returncode == 2
