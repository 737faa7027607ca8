"""For tests of the tracing engine: a cache of compiled programs, targets that fire on request, probes of our own."""

import os
import sys
from pathlib import Path

import pytest
from processes import byte_in_memory

from usdtkit import Provider


@pytest.fixture(scope="session", autouse=True)
def directories(tmp_path_factory):
    """Bytecode and provider files of this run; programs are compiled once for all tests that ask the same."""
    with pytest.MonkeyPatch.context() as patch:
        lent = os.environ.get("USDTKIT_TEST_LENT")  # see tests/conftest.py
        # Processes that run tests at the same time share what was compiled.
        base = tmp_path_factory.getbasetemp()
        bytecode = Path(lent) if lent else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bytecode"
        bytecode.mkdir(exist_ok=True, mode=0o700)
        patch.setenv("USDTKIT_CACHE", str(bytecode / "cache"))
        patch.setenv("USDTKIT_DIR", str(tmp_path_factory.mktemp("providers")))
        yield


@pytest.fixture
def declare():
    """declare("own:probe", **arguments) -> a loaded probe of this very process, which a session can trace as well."""

    def make(spec, **arguments):
        provider, name = spec.split(":")
        owner = Provider(provider)
        probe = owner.probe(name, **arguments)
        owner.load()
        return probe

    return make


class Stepper:
    """programs/stepper.c as a process that fires as often as it is told: `pid`, `path`."""

    def __init__(self, process, path, wait_for_line):
        self.process = process
        self.pid = process.pid
        self.path = str(path)
        self._wait_for_line = wait_for_line
        wait_for_line(process, "ready")

    def fire(self, times):
        """Fire, and return how often the semaphore was raised meanwhile."""
        self.send(times)
        return self.fired()

    def send(self, times):
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def fired(self):
        return int(self._wait_for_line(self.process, "fired", timeout=60).split()[3])

    def finish(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0

    def first_byte(self, file_offset):
        return byte_in_memory(self.pid, self.path, file_offset)


@pytest.fixture
def stepper(compile_c, spawn, wait_for_line):
    """stepper() -> a Stepper; all of them run the same file, or with `path` the one there."""
    program = compile_c("stepper.c", "-O2")
    return lambda path=program: Stepper(spawn([path]), path, wait_for_line)


@pytest.fixture
def ready(spawn, wait_for_line):
    """ready(argv) -> a program of tests/programs that has mapped all it will, and waits for a line."""

    def start(argv):
        process = spawn(argv)
        wait_for_line(process, "ready")
        return process

    return start


@pytest.fixture
def run_python(spawn):
    """run_python(source, *arguments, prefix=(), **popen) -> a process that runs Python source with usdtkit."""
    root = Path(__file__).parents[2]

    def run(source, *arguments, prefix=(), **popen):
        environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}"} | popen.pop("env", {})
        return spawn([*prefix, sys.executable, "-c", source, *arguments], env=environment, **popen)

    return run
