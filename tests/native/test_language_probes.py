"""The C behind the ready-made probes of the language, under the sanitisers: all hooks set, by a tracer that is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import SANITISE, build

HERE = Path(__file__).parents[1]

# Every site is poked as a tracer would, so that the watcher sets all hooks; then the program does what they see.
PROGRAM = """
import ctypes, gc, os, sys, threading, time
sys.path.insert(0, sys.argv[1])
from stubs import poke, site_of
from usdtkit.instrument import python
from usdtkit import _python
assert _python.__file__ == sys.argv[2]
python.install()
probes = python.Provider("python").probes

class Called:
    def __call__(self):
        try:
            raise ValueError("\\udcff")
        except ValueError:
            pass

def generator():
    yield 1

async def coroutine():
    return 1

def work():
    for _ in range(97):
        list(generator())
        try:
            coroutine().send(None)
        except StopIteration:
            pass
        Called()()
        abs(-1)
        sys.audit("some.event", 1)
    for name in ("\\udcff", "\\ud800"):
        thread = threading.Thread(target=Called(), name=name)
        thread.start()
        thread.join()
    gc.collect()
    import colorsys
    sys.modules.pop("colorsys")
    if not os.fork():
        Called()()
        os._exit(0)
    os.wait()

# xor %eax, %eax; ret: the first byte differs, as with a breakpoint
sites = [(site_of(probe), probe) for probe in probes]
before = [ctypes.string_at(site, 16) for site, _ in sites]
for _ in range(3):
    for site, _probe in sites:
        poke(site, b"\\x31\\xc0\\xc3")
    until = time.monotonic() + 20
    while len(python.traced()) < len(probes) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(python.traced()) == len(probes), python.traced()
    work()
    for (site, _probe), code in zip(sites, before):
        poke(site, code)
    while python.traced():
        time.sleep(0.01)
    work()
print("done", len(probes))
"""


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, "python", level)


def test_all_hooks_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    module = build(tmp_path, "python", *SANITISE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    variables = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(tmp_path),
        "USDTKIT_DIR": str(tmp_path),
    }
    command = [sys.executable, "-c", PROGRAM, HERE, module]
    done = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("done ")
