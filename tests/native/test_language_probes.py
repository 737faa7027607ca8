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

# Each way in which a stand-in can be called and can end; nothing may keep or lose a reference.
STAND_INS = """
import gc, sqlite3, sys, threading, _thread
from usdtkit import _python as native
assert native.__file__ == sys.argv[2]
told = []

class Interrupt(BaseException):
    pass

def check(done, result, error):
    def original(*args, **keywords):
        if error:
            raise error("mine")
        return result
    def begin(*args, **keywords):
        assert keywords == {"key": thing}
        return done
    thing = object()
    stand_in = native.measured(original, begin)
    assert (stand_in.__name__, repr(stand_in), stand_in.__class__) == ("original", repr(original), type(original))
    class Holder:
        method = stand_in
    assert Holder.method is stand_in
    for call in (stand_in, Holder().method, Holder.method):
        gc.collect()  # exceptions of before may hold frames in cycles
        before = [sys.getrefcount(each) for each in (result, thing, done or thing)]
        for _ in range(97):
            try:
                assert call(thing, key=thing) is result and not error
            except (ValueError, Interrupt) as raised:
                said = (type(raised), type(raised.__context__))
        assert before == [sys.getrefcount(each) for each in (result, thing, done or thing)]
    return said if error or done is interrupts else None

def tells(result, error, latency):
    told.append((result is not None, error))
    assert 0 <= latency < 10**10

def interrupts(*_):
    raise Interrupt

result = object()
assert check(None, result, None) is None and not told
assert check(tells, result, None) is None and told == [(True, "")] * 291
assert check(None, result, ValueError)[0] is ValueError
assert check(tells, result, ValueError)[0] is ValueError and told[-1] == (False, "ValueError")
assert check(interrupts, result, None) == (Interrupt, type(None))
assert check(interrupts, result, ValueError) == (Interrupt, ValueError)
refuses = native.measured(len, interrupts)
try:
    refuses([])
except Interrupt:
    pass
else:
    raise AssertionError

# types in C: methods, and slots, which their subclasses inherit
class Cursor(sqlite3.Cursor):
    pass
cursor = sqlite3.connect(":memory:").cursor(Cursor)
for name in ("execute", "__next__", "__init__"):
    original = vars(sqlite3.Cursor)[name]
    native.set_attribute(sqlite3.Cursor, name, native.measured(original, lambda *_: tells))
    del told[:]
    for _ in range(97):
        assert list(cursor.execute("SELECT 1")) == [(1,)]
        sqlite3.Cursor(cursor.connection)
    assert len(told) == {"__next__": 194}.get(name, 97), (name, len(told))
    native.set_attribute(sqlite3.Cursor, name, original)
for wrong in ((5, "a", 1), (int, 5, 1), (sqlite3.Cursor,)):
    try:
        native.set_attribute(*wrong)
    except TypeError:
        continue
    raise AssertionError(wrong)
try:
    sqlite3.Cursor.execute = None
except TypeError:
    pass
else:
    raise AssertionError("the type is not as it was")

# locks: free, held, and held when a signal comes
kind = type(_thread.allocate_lock())
acquire = kind.acquire
waits = []
for report in (lambda *said: waits.append(said), interrupts):
    stand_in = native.waiting(acquire, acquire, kind.release, report)
    lock = _thread.allocate_lock()
    before = sys.getrefcount(lock)
    for _ in range(97):
        assert stand_in(lock) is True and stand_in(lock, False) is False and stand_in(lock, blocking=False) is False
        for wrong in ((), (5,), (lock, True, -5), (lock, 1, 2, 3), (lock, True, 10**400), (lock, "x", object())):
            try:
                stand_in(*wrong)
            except (TypeError, ValueError, OverflowError):
                continue
            raise AssertionError(wrong)
        try:
            assert stand_in(lock, True, 0.0001) is False and report is not interrupts
        except Interrupt:
            assert report is interrupts
        releases = threading.Timer(0.001 if _ % 8 == 0 else 0, lock.release)
        releases.start()
        try:
            assert stand_in(lock)
            lock.release()
        except Interrupt:
            assert not lock.locked()
        releases.join()
    del waits[:], releases, wrong
    gc.collect()
    assert before == sys.getrefcount(lock)
print("done")
"""


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, "python", level)


@pytest.mark.parametrize("program", [PROGRAM, STAND_INS], ids=["hooks", "stand_ins"])
def test_all_under_address_and_undefined_behaviour_sanitisers(tmp_path, program):
    module = build(tmp_path, "python", *SANITISE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    variables = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(tmp_path),
        "USDTKIT_DIR": str(tmp_path),
    }
    command = [sys.executable, "-c", program, HERE, module]
    done = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("done")
