"""The examples of docs/providers.md and of the modules' docstrings, run against the software that they measure."""

import importlib
import re
import sys
import textwrap
import time
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SECTIONS = dict(re.findall(r"^## [^\n]*`usdtkit\.providers\.(\w+)`$(.*?)(?=^## |\Z)", PAGE, re.S | re.M))


@pytest.fixture
def run_examples(spawn):
    """run_examples(module, pid, work): run the examples of a section, and compare what they print with the page.

    The process is `pid` in place of 4711. An example that waits for events ends when it has seen them: until then
    `work` is called, which makes the traced software do what the example is about.
    """

    def run(module, pid=0, work=None):
        examples = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", SECTIONS[module], re.S)
        assert len(examples) == SECTIONS[module].count("```python") > 0
        for code, output in examples:
            process = spawn([sys.executable, "-c", code.replace("4711", str(pid))])
            deadline = time.monotonic() + 60
            while work is not None and process.poll() is None:
                work()
                assert time.monotonic() < deadline, f"the example has not seen what it waits for:\n{code}"
            assert process.stdout.read() == output
            assert process.wait(20) == 0

    return run


def test_examples_of_mysql(mariadb, run_examples):
    run_examples("mysql", mariadb.pid, lambda: mariadb.query("select sleep(0.02)"))


def test_examples_of_postgresql(postgres, run_examples):
    run_examples("postgresql", work=lambda: postgres.query("select pg_sleep(0.02)"))


def test_examples_of_sql(run_examples):
    run_examples("sql")


@pytest.mark.parametrize("module", SECTIONS)
def test_every_section_is_run_and_begins_with_the_example_of_its_module(module):
    assert f"test_examples_of_{module}" in globals()
    documented = importlib.import_module(f"usdtkit.providers.{module}").__doc__
    example = re.search(r"\n\n((?: {4}.*\n|\n)+)\n", documented)
    assert SECTIONS[module].lstrip().startswith(f"```python\n{textwrap.dedent(example[1])}```")
