"""The programs that `usdtkit provider script` prints run in the stock tools, and print what was fired."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit.cli import main

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]

SHOP = """
from usdtkit import Provider, argument
shop = Provider("shop")
paid = shop.probe("paid", doc="Money has come.", int=argument("u64", unit="EUR", doc="in words"), who="str",
    state=argument("enum", names={"new": 0, 'p"aid%': -1}), small="i8", share="f64", basket="json", body="bytes",
    third="f32", flag="bool")
other = shop.probe("other")
"""
FIRES = """
for number in range(211):
    paid(number, f"ada {number}", -(number % 2), -number % 128 - 128, number / 2, [number], b"a\\0b", 0.5, True)
other()
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture
def script(environment, capsys, tmp_path):
    """script(kind) -> path of the program for the probe shop:paid."""
    python(f"{SHOP}shop.build()", environment)

    def written(*options):
        assert main(["provider", "script", "shop", *options]) == 0
        path = tmp_path / "script"
        path.write_text(capsys.readouterr().out)
        return path

    return written


def python(text, environment):
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def expected(show):
    return sorted(show(number, "new" if number % 2 == 0 else "p?aid?") for number in range(211))


def test_bpftrace(script, environment, spawn, wait_for_line):
    program = script("--bpftrace").read_text()
    program = program.replace("BEGIN\n{", 'BEGIN\n{\n\tprintf("ready\\n");')
    assert "// int: u64 EUR, in words\n// beyond arg5, which older bpftrace cannot read: body, third, flag" in program
    tracer = spawn(["bpftrace", "-e", program], stderr=subprocess.STDOUT, env=environment | {"BPFTRACE_STRLEN": "32"})
    wait_for_line(tracer, "ready")
    python(SHOP + FIRES, environment)
    lines = [wait_for_line(tracer, "shop:paid").split(None, 1)[1] for _ in range(211)]
    wait_for_line(tracer, "shop:other")
    import struct

    assert sorted(lines) == expected(
        lambda number, state: (
            f"shop:paid int={number} who=ada {number} state={state} small={-number % 128 - 128} "
            f"share=0x{struct.pack('>d', number / 2).hex().lstrip('0') or '0'} basket=[{number}]"
        )
    )


@pytest.mark.parametrize("by_pid", [False, True], ids=["path", "pid"])
def test_bcc(script, environment, spawn, wait_for_line, by_pid):
    headers = {"BCC_KERNEL_SOURCE": str(ROOT / "usdtkit/bpf/headers")}
    # A file for what was declared first, and one for the rest.
    loads = f"{SHOP}shop.load(); later = shop.probe('later', id='u64'); shop.load()"
    service = spawn(
        [sys.executable, "-c", f"{loads}; print('loaded', flush=True); input(){FIRES}later(997)"], env=environment
    )
    wait_for_line(service, "loaded")
    path = script("--bcc")
    options = ["-p", service.pid] if by_pid else []
    tracer = spawn(["/usr/bin/python3", path, *options], stderr=subprocess.STDOUT, env=environment | headers)
    wait_for_line(tracer, "ready")
    service.communicate("\n", timeout=60)
    # bcc has a buffer for each probe: in which order it reads them is its own affair.
    lines = [re.sub(r"^\d+ ", "", wait_for_line(tracer, "shop:")) for _ in range(213)]
    tracer.send_signal(signal.SIGINT)
    assert tracer.wait(30) == 0
    assert {line for line in lines if "shop:paid" not in line} == {"shop:other", "shop:later id=997"}
    assert sorted(line for line in lines if "shop:paid" in line) == expected(
        lambda number, state: (
            f"shop:paid int={number} who='ada {number}' state={state} small={-number % 128 - 128} share={number / 2} "
            f"basket='[{number}]' body='a\\x00b' third=0.5 flag=1"
        )
    )
