"""`usdtkit run`: the program behaves as with bare Python, and learns what to publish."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import assert_explained, usdtkit

ROOT = Path(__file__).parents[2]
USDTKIT_RUN = [sys.executable, "-m", "usdtkit.run"]

APP = """
import json, os, signal, sys
def end(code):
    sys.exit(code)
if __name__ == "__main__":
    print(sys.argv, __name__, __file__, sys.path[0], sys.flags.dev_mode, sys.warnoptions, __spec__ and __spec__.name)
    sys.stdout.flush()
    exec(sys.argv[1])
"""


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"PYTHONPATH": str(ROOT), "USDTKIT_DIR": str(tmp_path / "probes")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["app.py", "end(0)", "--with", "-m", "x"],
        ["app.py", "end(7)"],
        ["app.py", "end('a message')"],
        ["app.py", "1 / 0"],
        ["app.py", "raise KeyboardInterrupt"],
        ["app.py", "os.kill(os.getpid(), signal.SIGTERM)"],
        ["app.py", "os.kill(os.getpid(), signal.SIGINT)"],
        ["-X", "dev", "-W", "error", "app.py", "import warnings; warnings.warn('x')"],
        ["-m", "app", "1 / 0", "-m", "--only"],
        ["-c", "import sys; print(sys.argv, __name__); 1 / 0", "-c", "x"],
        ["package", "end(3)"],
        ["missing.py"],
        ["-", "x"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_as_bare_python(arguments, environment, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(APP)
    pipes = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 60}
    text = "import sys; print(sys.argv); sys.exit(5)"
    bare = subprocess.run([sys.executable, *arguments], input=text, **pipes)
    run = subprocess.run([*USDTKIT_RUN, *arguments], input=text, **pipes)
    assert (run.returncode, run.stdout, run.stderr) == (bare.returncode, bare.stdout, bare.stderr)


def test_what_has_probes_is_said_on_request(environment):
    script = "import sqlite3; print('here')"
    done = subprocess.run(
        [*USDTKIT_RUN, "-v", "--with", "dbapi,gc", "-c", script], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "here\n")
    lines = done.stderr.splitlines()
    assert "usdtkit: gc: gc: callbacks" in lines
    assert lines[-1].startswith("usdtkit: dbapi: sqlite3: ")


def test_a_signal_from_outside(environment, spawn, wait_for_line):
    script = "import time; print('ready', flush=True); time.sleep(60)"
    process = spawn([*USDTKIT_RUN, "-c", script], env=environment, stderr=subprocess.PIPE)
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert process.stderr.read().rstrip().endswith("KeyboardInterrupt")


def test_what_the_program_is_told(environment):
    script = "import os; print(os.environ['USDTKIT_INSTRUMENT'])"
    options = ["--with", "logging, gc", "--only", "*/shop/*", "--skip", "*a,b*"]
    done = subprocess.run([*USDTKIT_RUN, *options, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"python": {"only": ["*/shop/*"], "skip": ["*a,b*"]}, "logging": {}, "gc": {}}


def test_what_cannot_be_installed_does_not_stop_the_program(environment, tmp_path):
    site = usdtkit("run", "--print-site").stdout.strip()
    script = [sys.executable, "-c", "print('here')"]
    told = environment | {"PYTHONPATH": site, "USDTKIT_INSTRUMENT": "python,nonsense"}
    done = subprocess.run(script, env=told, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert done.stderr == "usdtkit: not instrumented: there are no ready-made probes for 'nonsense'\n"
    untold = environment | {"PYTHONPATH": site}
    script = [sys.executable, "-c", "import sys; print('usdtkit' in sys.modules)"]
    done = subprocess.run(script, env=untold, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no program"]),
        (["--nonsense", "app.py"], ["--nonsense"]),
        (["--with", "wigs", "app.py"], ["wigs", "wsgi"]),
    ],
    ids=["nothing", "option", "name"],
)
def test_what_is_wrong_is_said(arguments, words):
    assert_explained(usdtkit("run", *arguments), 2, *words)
