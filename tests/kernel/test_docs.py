"""What the documentation shows is run, and prints what it says."""

import re
import sys
from pathlib import Path

import pytest
from processes import read_until

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
PYTHON_IN_README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
EXAMPLES = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)


@pytest.mark.parametrize(("code", "output"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_api(code, output, spawn):
    process = spawn([sys.executable, "-c", code])
    assert process.stdout.read() == output
    assert process.wait(20) == 0


def test_the_queries_in_the_readme(mariadb, spawn):
    *_, queries = PYTHON_IN_README
    watching = spawn([sys.executable, "-u", "-c", f"{queries}        break\n".replace("4711", str(mariadb.pid))])
    while watching.poll() is None:  # until one comes after it has attached
        mariadb.query("select sleep(0.01) as 'secret'")
    latency, query = watching.stdout.read().split(maxsplit=1)
    assert int(latency) > 10_000_000
    assert query == "select sleep(?) as ?\n"


def test_every_example_of_the_api_is_run():
    assert len(EXAMPLES) == (ROOT / "docs" / "api.md").read_text().count("```python") > 3


def test_the_two_sides_in_the_readme(spawn):
    service, tracer, _ = PYTHON_IN_README
    loop = "import time\nwhile True:\n    order_start(42, 'ada')\n    time.sleep(0.002)\n    order_done(42, 201)\n"
    running = spawn([sys.executable, "-c", f"{service}print('ready', flush=True)\n{loop}"])
    read_until(running, "ready")
    assert "trace.Session()" in tracer
    # Of this service only: whoever runs the tests may run another shop besides.
    watching = spawn([sys.executable, "-u", "-c", tracer.replace("Session()", f"Session(pid={running.pid})")])
    latency, *rest = read_until(watching, "ada", timeout=60).split()
    assert rest == ["ada", "201"]
    assert int(latency) >= 2_000_000
