"""The symptoms of docs/troubleshooting.md: for each, the command that it names says what the page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import usdtkit
from processes import among_own_mounts

from usdtkit.processes import below

# Declares trouble:order, runs the code that it is given, says ready, and then again for each line of its input.
SERVICE = """
import itertools, sys
from usdtkit import Provider
trouble = Provider("trouble")
order = trouble.probe("order", id="u8")
for line in itertools.chain(sys.argv[1:], sys.stdin):
    exec(line)
    print("ready", flush=True)
"""
PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()


@pytest.fixture
def service(run_python, wait_for_line):
    """service(code) -> a running SERVICE."""

    def start(code, **popen):
        process = run_python(SERVICE, code, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **popen)
        wait_for_line(process, "ready")
        return process

    return start


@pytest.fixture
def traced(service, spawn, wait_for_line):
    """traced(spec, code) -> (what doctor says of the probe while it is traced and the code has run, the last line)."""

    def run(spec, code):
        process = service("trouble.load()")
        tracer = spawn(
            [sys.executable, "-m", "usdtkit", "trace", "-p", str(process.pid), spec],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert any(line.startswith("Tracing") for line in tracer.stderr)
        process.stdin.write(code + "\n")
        process.stdin.flush()
        wait_for_line(process, "ready")
        told = doctor("trouble", process)
        tracer.terminate()
        return told[-1], tracer.communicate(timeout=20)[1].splitlines()[-1]

    return run


def doctor(provider, process):
    done = usdtkit("doctor", provider, "-p", process.pid)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_provider_that_is_not_loaded_yet(service):
    process = service("pass")
    assert usdtkit("trace", "trouble:order", "-p", process.pid).returncode == 4
    assert "trouble:" not in usdtkit("list", "-p", process.pid).stdout
    done = usdtkit("doctor", "trouble", "-p", process.pid)
    assert done.returncode == 4 and "at their first use or load()" in done.stderr


@pytest.mark.parametrize(
    ("spec", "code", "line", "received"),
    [
        ("trouble:order", "pass", "; fired 0", "received 0, lost 0"),
        ("u::trouble:order (id > 100)", "[order(n) for n in range(100)]", "; fired 100", "received 0 of 100 hits"),
        ("trouble:order", "[order(n) for n in range(256, 356)]", "; fired 0, not fired 100", "100 calls not fired"),
    ],
    ids=["not reached", "excluded", "wrong values"],
)
def test_traced_and_nothing_comes(traced, spec, code, line, received):
    told, last = traced(spec, code)
    assert told.startswith("    probe    order: traced by ") and told.endswith(line)
    assert received in last


def test_a_program_with_its_own_probes_of_this_name(service):
    process = service(
        "from usdtkit.instrument import gc; gc.install(); mine = Provider('gc'); mine.probe('collection', n='u8')"
    )
    reason = "    wrapped  the ready-made probes: nothing (the program has its own probes gc:collection)"
    assert reason in doctor("gc", process)
    assert "`wrapped  the ready-made probes: nothing (the program has its own …)`" in PAGE


def test_a_file_in_memory_only(service):
    script = 'mount -t tmpfs -o noexec none /run; mount -t tmpfs -o noexec none /var; exec "$@"'
    environment = {"USDTKIT_DIR": "/run/own", "XDG_RUNTIME_DIR": "", "CACHE_DIRECTORY": "", "HOME": "/run/home"}
    elsewhere = [*among_own_mounts(script), "sh"]
    process = service("trouble.load()", prefix=elsewhere, env=environment)
    listed = usdtkit("list", "-p", process.pid, "trouble:*")
    assert listed.stdout.startswith("trouble:order /proc/")
    assert doctor("trouble", process)[-1] == "    probe    order: not traced; fired 0"
    done = usdtkit("doctor", prefix=elsewhere, env=os.environ | environment)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("providers")]
    assert line.startswith("providers        missing  no directory can hold them")


def test_a_python_that_ignores_the_environment(spawn, wait_for_line):
    """A child of `usdtkit run` that is started with -I has no probes, and so no report."""
    source = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-I', '-c', 'print(\"ready\", flush=True); input()'], stdin=sys.stdin)"
    )
    process = spawn([sys.executable, "-m", "usdtkit.run", "--with", "gc", "-c", source], stdin=subprocess.PIPE)
    wait_for_line(process, "ready")
    assert doctor("gc", process)[-1] == "    probe    collection: not traced; fired 0"
    (child,) = below(process.pid)
    assert usdtkit("doctor", "gc", "-p", child).returncode == 4


def test_a_library_that_is_not_imported(spawn, wait_for_line):
    source = "print('ready', flush=True); input()"
    process = spawn([sys.executable, "-m", "usdtkit.run", "--with", "dbapi", "-c", source], stdin=subprocess.PIPE)
    wait_for_line(process, "ready")
    (line,) = [line for line in doctor("dbapi", process) if line.startswith("    waiting  for the program to import ")]
    assert "sqlite3" in line
    assert "`waiting  for the program to import …`" in PAGE
